"""What `doctor` asks the platforms: whether the token works, and what the bot may do there."""

from typing import Any

import httpx

from infra.errors import ServiceTrouble, UserMistake
from infra.settings import Settings

# https://discord.com/developers/docs/resources/application: the message content intent, for any bot and for small ones.
MESSAGE_CONTENT = (1 << 18) | (1 << 19)


def check_discord(settings: Settings) -> str:
    """The application behind the token, and whether it may listen."""
    chosen = settings.discord
    if chosen.token is None:
        return "not set up (UNDERSTUDY_DISCORD__TOKEN)"
    headers = {"Authorization": f"Bot {chosen.token.get_secret_value()}"}
    found = asked("Discord", f"{chosen.api.rstrip('/')}/oauth2/applications/@me", headers=headers)
    allowed = bool(int(found.get("flags", 0)) & MESSAGE_CONTENT)
    if chosen.message_content and not allowed:
        raise UserMistake(
            "discord.message_content is on, but the portal's Message Content Intent is off: switch it on under Bot, "
            "Privileged Gateway Intents, or set discord.message_content = false."
        )
    return f"{found.get('name', 'the application')}; {listening(chosen.message_content, allowed=allowed)}"


def listening(wanted: bool, *, allowed: bool) -> str:
    """Whether the bot can hear what is not addressed to it, in words."""
    if wanted:
        return "it may listen where an admin says /listen on"
    hint = "set discord.message_content = true" if allowed else "switch Message Content Intent on in the portal first"
    return f"everything but listening works; to listen, {hint}"


def check_telegram(settings: Settings) -> str:
    """The bot behind the token, and whether privacy mode keeps it from listening."""
    chosen = settings.telegram
    if chosen.token is None:
        return "not set up (UNDERSTUDY_TELEGRAM__TOKEN)"
    url = f"{chosen.api.rstrip('/')}/bot{chosen.token.get_secret_value()}/getMe"
    found = asked("Telegram", url)["result"]
    if found.get("can_read_all_group_messages"):
        return f"@{found['username']}; it may listen where an admin says /listen on"
    return f"@{found['username']}; privacy mode is on: to listen in groups, /setprivacy at BotFather, or make it admin"


def asked(name: str, url: str, *, headers: dict[str, str] | None = None) -> Any:
    """One GET. Raises UserMistake for a token that is not known, ServiceTrouble when the platform does not answer."""
    try:
        response = httpx.get(url, headers=headers, timeout=10)
    except httpx.HTTPError as error:
        raise ServiceTrouble(f"{name} does not answer ({type(error).__name__}); is this machine online?") from error
    if response.status_code in {401, 403, 404}:
        raise UserMistake(f"{name} does not know this token; copy it again.")
    if not response.is_success:
        raise ServiceTrouble(f"{name} answered with HTTP status {response.status_code}; try again later.")
    return response.json()
