"""Every command, once: what members may ask of the twin and what admins may do with it.

A command is an async function from a caller and its options to a screen. The platforms register `COMMANDS` under their
own names for them; the right to use one is checked here, whatever a platform lets people see.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from bot.community import Community
from bot.screens import Button, Caller, Form, Screen, why_line
from infra.adapters import SHARE, check_share
from infra.errors import Refused, ServiceTrouble, UnderstudyError, UserMistake
from memory.forget import Forgotten, known_of
from memory.journal import Judged
from memory.messages import Note
from memory.remember import choice_event, consent_event, listening_event
from memory.selection import Selection

Options = Mapping[str, str]
Run = Callable[[Community, Caller, Options], Awaitable[Screen]]


@dataclass(frozen=True)
class Option:
    """`help` is a key of the texts; `choices` are all values there are, or none where text is free."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True)
class Command:
    """`help` is a key of the texts. "ask" goes to the twin itself and has no function here."""

    name: str
    help: str
    audience: Literal["member", "admin"]
    run: Run | None
    options: tuple[Option, ...] = ()


async def run_command(community: Community, name: str, caller: Caller, options: Options) -> Screen:
    """What a command answers, or why this caller may not use it."""
    command = BY_NAME[name]
    if command.audience == "admin" and not community.is_admin(caller):
        return community.screen("anonymous" if caller.anonymous else "for_admins", caller)
    assert command.run is not None, f"{name!r} is the platform's to run"
    try:
        return await command.run(community, caller, options)
    except ServiceTrouble:
        return community.screen("service_down", caller)


async def about(community: Community, caller: Caller, options: Options) -> Screen:
    """Whose stand-in this is, what it runs on and what it learns from."""
    counts = await community.operate(community.journal.counts)
    voices = await community.operate(community.operations.voices)
    permission = await community.operate(community.operations.permission)
    key, facts = ("about_permission", permission) if permission else ("about_no_permission", ("", ""))
    return community.screen(
        "about",
        caller,
        about=community.persona.about,
        voice=voices["voice"],
        exchanges=counts["exchanges"],
        passages=counts["passages"],
        permission=community.say(key, caller, reference=facts[0], date=facts[1]),
    )


async def privacy(community: Community, caller: Caller, options: Options) -> Screen:
    """What is kept, for how long, and how to get rid of it."""
    return community.screen("privacy", caller, platform=community.say(f"privacy_{caller.place.platform}", caller))


async def consent(community: Community, caller: Caller, options: Options) -> Screen:
    """A member's word on what may be done with their words: here for training, everywhere for being remembered."""
    choice = options.get("choice", "").strip().lower()
    if choice not in {"yes", "no", "off"}:
        return community.screen("consent_how", caller, now=await now_chosen(community, caller))
    granted: Literal["yes", "no"] = "yes" if choice == "yes" else "no"
    now = community.clock()
    await community.remember(
        consent_event(caller.person, caller.place, granted=granted, at=now),
        choice_event(caller.person, "remember", value=choice != "off", at=now),
    )
    return community.screen(f"consent_{choice}", caller)


async def now_chosen(community: Community, caller: Caller) -> str:
    """The choice in force."""
    if not await asyncio.to_thread(community.members.chosen, caller.person.key, "remember"):
        return "off"
    agreed = await asyncio.to_thread(community.journal.consent, caller.person.key, caller.place.key)
    return "yes" if agreed else "no"


async def mydata(community: Community, caller: Caller, options: Options) -> Screen:
    """Everything kept about the caller, as a file."""
    found = await community.operate(lambda: known_of(community.journal, caller.person.key))
    if not found:
        return community.screen("mydata_none", caller)
    content = json.dumps(found, ensure_ascii=False, indent=1).encode()
    return Screen(community.say("mydata", caller, count=len(found)), file=("mydata.json", content))


async def forget(community: Community, caller: Caller, options: Options) -> Screen:
    """Ask before everything about the caller is deleted."""
    return sure(community, caller, "forget_sure", action="forget:me", yes="forget_yes")


async def forget_me(community: Community, caller: Caller) -> Screen:
    """Delete everything about the caller."""
    done = await community.forget(Selection(person=caller.person.key))
    return forgotten_screen(community, caller, "forget_done", done)


async def report(community: Community, caller: Caller, options: Options) -> Screen:
    """Ask what is wrong with the answer that the command replies to."""
    answer = await asyncio.to_thread(community.journal.answer_shown_as, caller.place, caller.replied_to)
    if answer is None:
        return community.screen("report_how", caller)
    return Screen(community.say("report_title", caller), (report_button(community, caller, answer.id),))


def report_button(community: Community, caller: Caller, answer_id: str) -> Button:
    """A button that asks for the reason of a report."""
    action, title = f"report:{answer_id}", community.say("report_title", caller)
    return Button(title, action, Form(action, title, community.say("report_field", caller)))


async def retrain(community: Community, caller: Caller, options: Options) -> Screen:
    """What a training would learn from, and whether to start it."""
    try:
        plan = await community.operate(community.operations.plan)
    except Refused as refusal:
        return community.screen("retrain_too_little", caller, reason=refusal.reason)
    left_out = sorted(plan["excluded"].items(), key=lambda item: -item[1])
    excluded = "\n".join(community.say("retrain_excluded", caller, reason=r, count=n) for r, n in left_out[:8])
    numbers = {name: plan.get(name, 0) for name in ("rows", "train", "validation", "heldout")}
    text = community.say("retrain_report", caller, **numbers, excluded=excluded)
    return Screen(text, (Button(community.say("confirm", caller), "retrain:go"), cancel(community, caller)))


async def retrain_now(community: Community, caller: Caller) -> Screen:
    """Start a training, or show the one under way; the platform follows its progress."""
    run_id, started = await community.operate(community.operations.retrain)
    stage = "" if started else (await community.operate(lambda: community.operations.run(run_id)))["stage"]
    key = "retrain_started" if started else "retrain_running"
    return Screen(community.say(key, caller, run=run_id, stage=stage), run=run_id)


def progress(community: Community, caller: Caller, run: Mapping[str, Any]) -> Screen:
    """A run as it stands; at its end with figures, a picture of them and a way back. The picture takes time to read."""
    if run["state"] in {"queued", "running"}:
        done, total = run["progress"].get("done", 0), run["progress"].get("total", 0)
        share = f"{done}/{total} {run['progress'].get('text', '')}".strip() if total else ""
        stage = run["stage"] or run["state"]
        return community.screen("retrain_progress", caller, run=run["id"], stage=stage, done=share)
    text = community.say(
        "retrain_ended", caller, run=run["id"], state=run["state"], figures=figures(community, caller, run)
    )
    swapped = run["state"] == "succeeded" and "swap" in run["result"]
    buttons = (Button(community.say("rollback", caller), "rollback:go"),) if swapped else ()
    return Screen(text, buttons, file=picture(community, run))


def figures(community: Community, caller: Caller, run: Mapping[str, Any]) -> str:
    """What an ended run measured, or why it ended."""
    card = run["result"].get("card")
    if not card:
        return str(run["error"])
    before, after = card["base"], card["candidate"]
    text = community.say(
        "retrain_figures",
        caller,
        heldout=card["heldout"],
        nll_before=f"{before['nll']:.2f}",
        nll_after=f"{after['nll']:.2f}",
        style_before=f"{before['style']:.2f}",
        style_after=f"{after['style']:.2f}",
        bad_before=f"{before['unhealthy']:.0%}",
        bad_after=f"{after['unhealthy']:.0%}",
    )
    return " ".join([text, *run["result"].get("verdict", {}).get("reasons", [])])


def picture(community: Community, run: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """The eval card as a picture, where there is one: progress must not fail for want of it."""
    version = run["result"].get("adapter")
    try:
        return ("evalcard.png", community.operations.picture(version)) if version else None
    except UnderstudyError:
        return None


async def voices(community: Community, caller: Caller, options: Options) -> Screen:
    """Every voice, the one that speaks, and the way back."""
    found = await community.operate(community.operations.voices)
    on_trial, pinned = (found["canary"] or {}).get("version"), {each["version"] for each in found["pinned"]}
    lines = [
        f"{'▶' if adapter['speaks'] else '🐤' if adapter['version'] == on_trial else '·'}"
        f"{'📌' if adapter['version'] in pinned else ''} {adapter['version']}: "
        + community.say("voice_passed" if (adapter["verdict"] or {}).get("passed") else "voice_refused", caller)
        for adapter in found["adapters"]
    ]
    adapters = "\n".join(lines) or community.say("voices_none", caller)
    buttons = (Button(community.say("rollback", caller), "rollback:go"),) if lines else ()
    return Screen(community.say("voices_list", caller, voice=found["voice"], adapters=adapters), buttons)


async def rollback(community: Community, caller: Caller, options: Options) -> Screen:
    """Back to the voice before."""
    return await rollback_now(community, caller)


async def rollback_now(community: Community, caller: Caller) -> Screen:
    voice = await community.operate(community.operations.rollback)
    return community.screen("rolled_back", caller, voice=voice)


async def canary(community: Community, caller: Caller, options: Options) -> Screen:
    """Begin the trial of a voice, or show how the one under way goes."""
    if version := options.get("version", "").strip():
        try:
            share = share_of(options.get("share", "").strip())
            await community.operate(lambda: community.operations.start_canary(version, share))
        except UnderstudyError as error:
            return community.screen("canary_not", caller, reason=error)
    found = await community.operate(community.operations.voices)
    trial = found["canary"]
    if trial is None:
        return community.screen("canary_none", caller)
    since = datetime.fromisoformat(trial["since"])
    judged = await community.operate(lambda: community.journal.judged(since=since))
    figures = [trial_figures(community, caller, voice, judged) for voice in (found["voice"], trial["voice"])]
    text = community.say(
        "canary_trial" if trial["speaks"] else "canary_silent",
        caller,
        canary=trial["version"],
        share=f"{100 * trial['share']:.3g} %",
        since=f"{since:%Y-%m-%d %H:%M} UTC",
        figures="\n".join(figures),
    )
    # What is pressed later is meant for the trial that was seen.
    labels = [(what, community.say(f"canary_{what}", caller)) for what in ("promote", "stop")]
    return Screen(text, tuple(Button(label, f"canary:{what}:{trial['version']}") for what, label in labels))


def share_of(words: str) -> float:
    """A share as people type it. Raises UserMistake for what is none."""
    try:
        share = float(words or SHARE)
    except ValueError as error:
        raise UserMistake(f"{words!r} is no share: write one like {SHARE}.") from error
    check_share(share)
    return share


def trial_figures(community: Community, caller: Caller, voice: str, judged: Mapping[str, Judged]) -> str:
    """What one voice answered and how that was liked."""
    found = judged.get(voice, Judged())
    figures = {"answers": found.answers, "failed": found.failed, "good": found.good, "bad": found.bad}
    return community.say("canary_figures", caller, voice=voice, **figures)


def canary_sure(community: Community, caller: Caller, what: str, version: str) -> Screen:
    """Ask before the trial ends, by "promote" or "stop"."""
    text = community.say(f"canary_{what}_sure", caller, canary=version)
    go = Button(community.say(f"canary_{what}", caller), f"{what}:{version}")
    return Screen(text, (go, cancel(community, caller)))


async def promote_now(community: Community, caller: Caller, version: str) -> Screen:
    """Let the canary answer everybody, if it still is the canary."""
    try:
        voice = await community.operate(lambda: community.operations.promote_canary(version))
    except UnderstudyError as error:
        return community.screen("canary_not", caller, reason=error)
    return community.screen("rolled_back", caller, voice=voice)


async def stop_now(community: Community, caller: Caller, version: str) -> Screen:
    """Let the voice answer everybody again, if this still is the canary."""
    try:
        voice = await community.operate(lambda: community.operations.stop_canary(version))
    except UnderstudyError as error:
        return community.screen("canary_not", caller, reason=error)
    return community.screen("canary_stopped", caller, canary=version, voice=voice)


async def status(community: Community, caller: Caller, options: Options) -> Screen:
    """How the twin is; what cannot be reached is said and does not hide the rest."""
    counts = await community.operate(community.journal.counts)
    try:
        voice = (await community.operate(community.operations.voices))["voice"]
    except ServiceTrouble as trouble:
        voice = str(trouble)
    silence = "status_silent" if await community.silenced() else "status_speaking"
    return community.screen(
        "status",
        caller,
        voice=voice,
        exchanges=counts["exchanges"],
        passages=counts["passages"],
        waiting=counts["waiting questions"],
        silence=community.say(silence, caller),
    )


async def pause(community: Community, caller: Caller, options: Options) -> Screen:
    """The kill switch."""
    await community.operate(lambda: community.operations.silence(on=True))
    return community.screen("paused", caller)


async def resume(community: Community, caller: Caller, options: Options) -> Screen:
    await community.operate(lambda: community.operations.silence(on=False))
    return community.screen("resumed", caller)


async def listen(community: Community, caller: Caller, options: Options) -> Screen:
    """Switch listening in this place on or off; said aloud where it was switched, so that everybody knows."""
    on = options.get("state", "").strip().lower() == "on"
    if on and (reason := options.get("cannot", "")):
        return community.screen("listen_cannot", caller, reason=reason)
    event = listening_event(caller.place, caller.person, on=on, space=caller.space, at=community.clock())
    await community.remember(event)
    return Screen(community.say("listen_on" if on else "listen_off", caller), private=False)


async def memory(community: Community, caller: Caller, options: Options) -> Screen:
    """Look into memory, or clear what came from this place."""
    if options.get("action", "").strip().lower() == "purge":
        return sure(community, caller, "memory_purge_sure", action="purge:here", yes="forget_yes")
    found = await community.operate(lambda: community.twin.recollect(options.get("words", ""), caller.place))
    notes = "\n\n".join(found_line(note, caller.language) for note in found.notes)
    return community.screen("memory_found" if notes else "memory_nothing", caller, notes=notes)


def found_line(note: Note, language: str) -> str:
    """A note as who looks into memory reads it."""
    heading = f"{note.score:.2f} **{note.question or note.source}**"
    return f"{heading}\n{note.text}\n*{why_line(note, language=language)}*"


async def purge_here(community: Community, caller: Caller) -> Screen:
    """Delete everything learned in this place."""
    place = caller.place
    done = await community.forget(Selection(place=f"{place.platform}:{place.id}"))
    return forgotten_screen(community, caller, "memory_purged", done)


def forgotten_screen(community: Community, caller: Caller, key: str, done: Forgotten) -> Screen:
    counts = {"messages": done.messages, "exchanges": len(done.exchanges), "events": done.events}
    return community.screen(key, caller, receipt=done.receipt, **counts)


def sure(community: Community, caller: Caller, key: str, *, action: str, yes: str) -> Screen:
    """Ask before doing what cannot be undone."""
    go = Button(community.say(yes, caller), action)
    return Screen(community.say(key, caller), (go, cancel(community, caller)))


def cancel(community: Community, caller: Caller) -> Button:
    return Button(community.say("cancel", caller), "cancel:")


COMMANDS: tuple[Command, ...] = (
    Command("ask", "help_ask", "member", None, (Option("question", "option_question"),)),
    Command("about", "help_about", "member", about),
    Command("privacy", "help_privacy", "member", privacy),
    Command(
        "consent", "help_consent", "member", consent, (Option("choice", "option_choice", ("yes", "no", "off"), False),)
    ),
    Command("mydata", "help_mydata", "member", mydata),
    Command("forget", "help_forget", "member", forget),
    Command("report", "help_report", "member", report),
    Command("retrain", "help_retrain", "admin", retrain),
    Command("voices", "help_voices", "admin", voices),
    Command("rollback", "help_rollback", "admin", rollback),
    Command(
        "canary",
        "help_canary",
        "admin",
        canary,
        (Option("version", "option_version", required=False), Option("share", "option_share", required=False)),
    ),
    Command("status", "help_status", "admin", status),
    Command("pause", "help_pause", "admin", pause),
    Command("resume", "help_resume", "admin", resume),
    Command("listen", "help_listen", "admin", listen, (Option("state", "option_listen", ("on", "off")),)),
    Command(
        "memory",
        "help_memory",
        "admin",
        memory,
        (Option("action", "option_action", ("search", "purge")), Option("words", "option_words", required=False)),
    ),
)
BY_NAME = {command.name: command for command in COMMANDS}
