"""The creator's inbox where they are: one card for each question that waits, and what its buttons do."""

import asyncio
from dataclasses import replace

from bot import inbox
from bot.community import Community
from bot.inbox import answer_question, given, waiting
from bot.screens import Button, Caller, Form, Screen
from infra.errors import UserMistake
from memory.journal import InboxItem
from memory.remember import exchange_event, preference_event


def card(community: Community, item: InboxItem, *, draft: str, language: str) -> Screen:
    """A question that waits, as the creator sees it."""
    caller = creator_caller(community, item, language)
    if item.state != "open":
        return Screen(community.say(f"card_{item.state}", caller, question=item.question))
    times = community.say("card_times", caller, count=item.count) if item.count > 1 else ""
    text = community.say("card", caller, question=item.question, asker=item.asker.name or item.asker.id, times=times)
    if draft:
        text += community.say("card_draft", caller, draft=draft)
    return Screen(text, card_buttons(community, caller, item.number, draft=draft))


def card_buttons(community: Community, caller: Caller, number: int, *, draft: str) -> tuple[Button, ...]:
    def filled(key: str, verb: str, value: str = "") -> Button:
        title, action = community.say(key, caller), f"{verb}:{number}"
        return Button(title, action, Form(action, title, community.say("inbox_field", caller), value))

    use = Button(community.say("inbox_use", caller), f"use:{number}")
    return (
        filled("inbox_answer", "answer"),
        *((use, filled("inbox_edit", "edit", draft)) if draft else ()),
        Button(community.say("inbox_dismiss", caller), f"dismiss:{number}"),
    )


async def form(community: Community, action: str, caller: Caller) -> Form | None:
    """The form behind a button of a card; None when its question does not wait any more."""
    number = int(action.partition(":")[2])
    try:
        _, draft = await asyncio.to_thread(item_and_draft, community, number)
    except UserMistake:
        return None
    buttons = card_buttons(community, caller, number, draft=draft)
    return next((button.form for button in buttons if button.action == action), None)


def creator_caller(community: Community, item: InboxItem, language: str) -> Caller:
    """The creator as whom a card speaks to."""
    person = item.asker
    return Caller(person, item.place, language)


async def answer(community: Community, caller: Caller, number: str, typed: str) -> Screen:
    """The creator's answer to a question: memory at once, and what was made of a draft is kept as a preference."""
    item, draft = await asyncio.to_thread(item_and_draft, community, int(number))
    now = community.clock()
    await community.operate(
        lambda: answer_question(community.journal, item.number, answer=typed, creator=caller.person, now=now)
    )
    if draft and draft.strip() != typed.strip():
        await community.remember(
            preference_event(item.question_id, item.question, draft=draft, edited=typed, by=caller.person, at=now)
        )
    return community.screen("inbox_done", caller)


async def use(community: Community, caller: Caller, number: str, typed: str) -> Screen:
    """The draft is right as it is: approved, it is the creator's own answer."""
    _, draft = await asyncio.to_thread(item_and_draft, community, int(number))
    return await answer(community, caller, number, draft)


def item_and_draft(community: Community, number: int) -> tuple[InboxItem, str]:
    """A question that waits, and the draft for it. Raises UserMistake when it does not wait any more."""
    item = waiting(community.journal, number)
    return item, community.members.draft(item.question_id)


async def dismiss(community: Community, caller: Caller, number: str, typed: str) -> Screen:
    await community.operate(
        lambda: inbox.dismiss(community.journal, int(number), creator=caller.person, now=community.clock())
    )
    return community.screen("inbox_dismissed", caller)


async def teach(community: Community, caller: Caller, message_id: str, typed: str) -> Screen:
    """The message `message_id`, which the creator vouches for, answers the question that they typed.

    The words came through a platform and keep its terms: memory answers from them, training needs what it always needs.
    """
    found = await asyncio.to_thread(community.journal.said, caller.place, message_id)
    if found is None:
        return community.screen("gone", caller)
    message, source = found
    taught = given(typed, message.text, creator=caller.person, now=community.clock())
    exchange = replace(taught, author=message.person, place=message.place, source=source, url=message.url)
    await community.remember(exchange_event(exchange))
    return community.screen("taught", caller)
