"""What a pressed button or a filled form does. An action is `verb:argument`, as it travelled with the button."""

import asyncio
from collections.abc import Awaitable, Callable

from bot import cards, commands, feedback
from bot.community import Community
from bot.screens import Caller, Form, Screen
from infra.errors import ServiceTrouble, UserMistake
from memory.messages import Source
from memory.remember import choice_event, question_event, report_event

Press = Callable[[Community, Caller, str, str], Awaitable[Screen]]


async def press(community: Community, action: str, caller: Caller, *, typed: str = "") -> Screen:
    """Do what a button means; `typed` is what its form was filled with.

    A button that outlived what it was for is answered with a sentence: buttons stay in chats for years.
    """
    if refusal := refused(community, action, caller):
        return refusal
    verb, _, argument = action.partition(":")
    try:
        return await PRESSES[verb](community, caller, argument, typed)
    except UserMistake:
        return community.screen("gone", caller)
    except ServiceTrouble:
        return community.screen("service_down", caller)


def refused(community: Community, action: str, caller: Caller) -> Screen | None:
    """Why this caller may not press this; None when they may. A platform asks before it shows a form."""
    verb = action.partition(":")[0]
    if verb not in PRESSES:
        return community.screen("gone", caller)
    if verb in FOR_ADMINS and not community.is_admin(caller):
        return community.screen("for_admins", caller)
    if verb in FOR_CREATOR and not community.is_creator(caller):
        return community.screen("for_creator", caller)
    return None


async def form(community: Community, action: str, caller: Caller) -> Form | None:
    """The form behind a button, made anew from its action: buttons outlive the processes that drew them.

    None for a button that opens none, for one whose question is closed, and for who may not use it.
    """
    if refused(community, action, caller):
        return None
    verb, _, argument = action.partition(":")
    if verb == "report":
        return commands.report_button(community, caller, argument).form
    if verb in {"answer", "edit"} and argument.isdigit():
        return await cards.form(community, action, caller)
    return None


async def up(community: Community, caller: Caller, answer_id: str, typed: str) -> Screen:
    """The answer helped."""
    return await vote(community, caller, answer_id, good=True)


async def down(community: Community, caller: Caller, answer_id: str, typed: str) -> Screen:
    """It did not; a report may follow."""
    noted = await vote(community, caller, answer_id, good=False)
    return Screen(noted.text, (commands.report_button(community, caller, answer_id),))


async def vote(community: Community, caller: Caller, answer_id: str, *, good: bool) -> Screen:
    await community.operate(
        lambda: feedback.vote(
            community.journal,
            answer_id,
            person=caller.person,
            value="good" if good else "bad",
            now=community.clock(),
        )
    )
    return community.screen("noted", caller)


async def report(community: Community, caller: Caller, answer_id: str, typed: str) -> Screen:
    """Journal a report; the creator's inbox shows it."""
    if await asyncio.to_thread(community.journal.answer, answer_id) is None:
        return community.screen("gone", caller)
    await community.remember(report_event(answer_id, caller.person, reason=typed, at=community.clock()))
    return community.screen("reported", caller)


async def ask(community: Community, caller: Caller, answer_id: str, typed: str) -> Screen:
    """Pass the question of an abstained answer on; the member is told where they asked."""
    return await pass_on(community, caller, answer_id, direct=False)


async def dm(community: Community, caller: Caller, answer_id: str, typed: str) -> Screen:
    """The same, and the member is told privately from now on."""
    return await pass_on(community, caller, answer_id, direct=True)


async def pass_on(community: Community, caller: Caller, answer_id: str, *, direct: bool) -> Screen:
    found = await asyncio.to_thread(community.journal.asked, answer_id)
    if found is None:
        return community.screen("gone", caller)
    message, source = found
    if message.person.key != caller.person.key:
        return community.screen("not_yours", caller)
    now = community.clock()
    await community.remember(
        choice_event(caller.person, "direct", value=direct, at=now), question_event(message, Source(source))
    )
    return community.screen("passed_on_direct" if direct else "passed_on", caller)


async def forget(community: Community, caller: Caller, argument: str, typed: str) -> Screen:
    return await commands.forget_me(community, caller)


async def purge(community: Community, caller: Caller, argument: str, typed: str) -> Screen:
    return await commands.purge_here(community, caller)


async def retrain(community: Community, caller: Caller, argument: str, typed: str) -> Screen:
    return await commands.retrain_now(community, caller)


async def rollback(community: Community, caller: Caller, argument: str, typed: str) -> Screen:
    return await commands.rollback_now(community, caller)


async def canary(community: Community, caller: Caller, argument: str, typed: str) -> Screen:
    what, _, version = argument.partition(":")
    return commands.canary_sure(community, caller, what, version)


async def promote(community: Community, caller: Caller, version: str, typed: str) -> Screen:
    return await commands.promote_now(community, caller, version)


async def stop(community: Community, caller: Caller, version: str, typed: str) -> Screen:
    return await commands.stop_now(community, caller, version)


async def cancel(community: Community, caller: Caller, argument: str, typed: str) -> Screen:
    return community.screen("cancelled", caller)


PRESSES: dict[str, Press] = {
    "up": up,
    "down": down,
    "report": report,
    "ask": ask,
    "dm": dm,
    "forget": forget,
    "purge": purge,
    "retrain": retrain,
    "rollback": rollback,
    "canary": canary,
    "promote": promote,
    "stop": stop,
    "cancel": cancel,
    "answer": cards.answer,
    "edit": cards.answer,
    "use": cards.use,
    "dismiss": cards.dismiss,
    "teach": cards.teach,
}
FOR_ADMINS = {"purge", "retrain", "rollback", "canary", "promote", "stop"}
FOR_CREATOR = {"answer", "edit", "use", "dismiss", "teach"}
