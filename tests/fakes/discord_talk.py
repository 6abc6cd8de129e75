"""The life of a message in the double: said, edited, reacted to, deleted, and each of it told to the gateway.

People and the bot go through the same functions; what a bot may not do is refused here, what a body may not contain in
`discord_limits`.
"""

from collections.abc import Mapping, Sequence

from tests.fakes import discord_limits as limits
from tests.fakes import discord_payloads as payloads
from tests.fakes.discord_limits import Json, Refusal
from tests.fakes.discord_world import (
    CATEGORY,
    FORUM,
    FakeChannel,
    FakeFile,
    FakeMessage,
    Intent,
    Permission,
    World,
    created_at,
)

SAFE_FLAGS = (1 << 2) | (1 << 12) | limits.COMPONENTS_V2
OLD_S = 3600.0


class Talk:
    """Every message of a world, and who said what to whom."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Discord does not publish this number; it is there so that editing old messages forever gets caught.
        self.old_edits_allowed = 3

    def new(self, where: FakeChannel, author: int, content: str, reply_to: int | None = None) -> FakeMessage:
        """A message not said yet; the first one in a forum post bears the id of the post."""
        opens = where.is_thread and not where.messages and self._in_forum(where) and where.id not in self.world.messages
        kind = 0 if reply_to is None else payloads.REPLY
        return FakeMessage(where.id if opens else self.world.new_id(), where.id, author, content, kind, reply_to)

    def _in_forum(self, where: FakeChannel) -> bool:
        return where.parent is not None and self.world.channels[where.parent].kind == FORUM

    def publish(self, message: FakeMessage) -> FakeMessage:
        self.world.messages[message.id] = message
        self.world.channels[message.channel].messages.append(message.id)
        self.tell("MESSAGE_CREATE", message)
        return message

    def by_person(self, message: FakeMessage, ping: bool) -> FakeMessage:
        message.pings_author = message.reply_to is not None and ping
        self._mention(message)
        return self.publish(message)

    def _mention(self, message: FakeMessage) -> None:
        """Work out whom a person's message reaches."""
        where = self.world.channels[message.channel]
        message.mentions = limits.pinged_users(message.content, None)
        message.mentioned_roles = [int(one) for one in limits.ROLE.findall(message.content)]
        may = self.world.permissions(message.author, where) & Permission.MENTION_EVERYONE
        message.everyone = bool(may and limits.EVERYONE.search(message.content))
        if message.pings_author:
            self._mention_author_of(message)

    def _mention_author_of(self, reply: FakeMessage) -> None:
        author = self.world.messages[reply.reply_to or 0].author
        if author not in reply.mentions:
            reply.mentions.append(author)

    def may_send(self, where: FakeChannel, body: Json, files: Mapping[str, bytes]) -> None:
        """Refuse the bot where it may not speak, or may not speak like this."""
        if where.kind in (FORUM, CATEGORY):
            raise Refusal(400, 50008, "Cannot send messages in a non-text channel")
        needed = Permission.SEND_MESSAGES_IN_THREADS if where.is_thread else Permission.SEND_MESSAGES
        needed |= Permission.EMBED_LINKS if body.get("embeds") else 0
        needed |= Permission.ATTACH_FILES if files else 0
        if not self.world.bot_may(where, needed):
            raise Refusal(403, 50013, "Missing Permissions")
        if where.recipient is not None and not self.world.users[where.recipient].dms_open:
            raise Refusal(403, 50007, "Cannot send messages to this user")

    def by_bot(self, where: FakeChannel, body: Json, files: Mapping[str, bytes]) -> FakeMessage:
        """Say what a request asks for; the caller has checked that the bot may speak."""
        message = self.new(where, self.world.bot_id, "", self._reply_target(where, body))
        message.nonce = body.get("nonce")
        message.flags = body.get("flags", 0) & SAFE_FLAGS
        self.fill(message, body, files)
        return self.publish(message)

    def _reply_target(self, where: FakeChannel, body: Json) -> int | None:
        pointer = body.get("message_reference")
        if not pointer:
            return None
        target = self.world.messages.get(int(pointer["message_id"]))
        if target is None or target.deleted or target.channel != where.id:
            if pointer.get("fail_if_not_exists", True):
                raise limits.invalid("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
            return None
        if not self.world.bot_may(where, Permission.READ_MESSAGE_HISTORY):
            raise Refusal(403, 160002, "You cannot reply without permission to read message history")
        return target.id

    def fill(self, message: FakeMessage, body: Json, files: Mapping[str, bytes]) -> None:
        """Put what a body says into a message; what it leaves out stays as it was."""
        message.flags |= body.get("flags", 0) & limits.COMPONENTS_V2
        limits.check_parts(body, files, message.flags)
        content = body["content"] or "" if "content" in body else message.content
        embeds = body["embeds"] or [] if "embeds" in body else message.embeds
        components = body["components"] or [] if "components" in body else message.components
        attached = self._attachments(message, body, files)
        limits.check_not_empty(content, embeds, components, attached, body.get("sticker_ids") or [])
        message.content, message.embeds, message.components = content.strip(), embeds, components
        message.attachments = attached
        if "content" in body or message.id not in self.world.messages:
            self._reach(message, body)

    def _attachments(self, message: FakeMessage, body: Json, files: Mapping[str, bytes]) -> list[FakeFile]:
        kept = {int(one["id"]) for one in body["attachments"] or []} if "attachments" in body else None
        old = [one for one in message.attachments if kept is None or one.id in kept]
        return [*old, *(FakeFile(self.world.new_id(), name, data) for name, data in files.items())]

    def _reach(self, message: FakeMessage, body: Json) -> None:
        """Who is pinged; a text that could ping by default is held against the bot.

        An edit is judged by its own `allowed_mentions`, whatever the message was sent with.
        """
        allowed = body.get("allowed_mentions")
        message.allowed_mentions = allowed
        message.mentions = limits.pinged_users(message.content, allowed)
        message.pings_author = message.reply_to is not None and (allowed or {}).get("replied_user", allowed is None)
        if message.pings_author:
            self._mention_author_of(message)
        public = self.world.channels[message.channel].guild is not None and not message.ephemeral
        if public and limits.pings_unasked(message.content, allowed):
            self.world.violations.append(f"ping: {message.content[:80]!r} was sent with allowed_mentions {allowed}")

    def rewrite(self, message: FakeMessage, body: Json, files: Mapping[str, bytes]) -> None:
        """An edit by the bot."""
        self._refuse_late_edits(message)
        self.fill(message, body, files)
        message.flags &= ~limits.LOADING
        self._edited(message)

    def _refuse_late_edits(self, message: FakeMessage) -> None:
        now = self.world.clock.wall()
        if now - created_at(message.id).timestamp() < OLD_S:
            return
        late = [when for when, _ in message.edits if self.world.clock.now() - when < OLD_S]
        if len(late) >= self.old_edits_allowed:
            raise Refusal(429, 30046, "Maximum number of edits to messages older than 1 hour reached. Try again later.")

    def reword(self, message: FakeMessage, content: str) -> None:
        """An edit by a person."""
        message.content = content
        self._mention(message)
        self._edited(message)

    def _edited(self, message: FakeMessage) -> None:
        message.edits.append((self.world.clock.now(), message.content))
        message.edited_at = self.world.clock.wall()
        self.tell("MESSAGE_UPDATE", message)

    def tell(self, event: str, message: FakeMessage) -> None:
        where = self.world.channels[message.channel]
        private = where.guild is None or message.ephemeral
        self._announce(event, where, lambda intents: payloads.message_event(self.world, message, intents), private)

    def _announce(self, event: str, where: FakeChannel, render: payloads.Render, private: bool) -> None:
        if self.world.bot_sees(where):
            intent = Intent.DIRECT_MESSAGES if private else Intent.GUILD_MESSAGES
            self.world.announce(event, render, intent=intent, guild=where.guild)

    def remove(self, where: FakeChannel, messages: Sequence[FakeMessage]) -> None:
        """Delete one message, or several at once as a moderator's purge does."""
        for message in messages:
            message.deleted = True
        place = {"channel_id": str(where.id), **({} if where.guild is None else {"guild_id": str(where.guild)})}
        if len(messages) == 1:
            gone: Json = {"id": str(messages[0].id), **place}
            self._announce("MESSAGE_DELETE", where, lambda _: gone, where.guild is None)
        else:
            many: Json = {"ids": [str(one.id) for one in messages], **place}
            self._announce("MESSAGE_DELETE_BULK", where, lambda _: many, where.guild is None)

    def react(self, user: int, message: FakeMessage, emoji: str, *, add: bool = True) -> None:
        who = message.reactions.setdefault(emoji, [])
        if add == (user in who):
            return
        (who.append if add else who.remove)(user)
        if not who:
            del message.reactions[emoji]
        self._tell_reaction("MESSAGE_REACTION_ADD" if add else "MESSAGE_REACTION_REMOVE", user, message, emoji)

    def _tell_reaction(self, event: str, user: int, message: FakeMessage, emoji: str) -> None:
        where = self.world.channels[message.channel]
        body = payloads.reaction_event(self.world, user, message, emoji)
        intent = Intent.DIRECT_MESSAGE_REACTIONS if where.guild is None else Intent.GUILD_MESSAGE_REACTIONS
        if self.world.bot_sees(where):
            self.world.announce(event, lambda _: body, intent=intent, guild=where.guild)
