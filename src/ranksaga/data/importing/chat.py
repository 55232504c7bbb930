"""A client of OpenAI-compatible chat endpoints, of which every answer is kept on disk.

The key comes from the environment alone, goes into one header, and is in no file and no message.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ranksaga.errors import DownloadError, UsageError
from ranksaga.files import cache_home, hash_json, read_json_if_sound, write_json
from ranksaga.untrusted.input_files import decoded
from ranksaga.untrusted.json_input import parse_json

__all__ = ["KEY_VARIABLES", "Chat"]

KEY_VARIABLES = ("RANKSAGA_API_KEY", "OPENAI_API_KEY")
ATTEMPTS = 5
TIMEOUT = 120.0  # seconds of silence
PAUSE = 1.0  # seconds before the second attempt, doubled each time
LONGEST_PAUSE = 60.0
LONGEST_ANSWER = 1 << 20  # bytes that are read of one; more is no answer to what is asked here


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another host."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


@dataclass(frozen=True)
class Chat:
    """One model of an endpoint.

    Attributes:
        url: of the API, such as ``http://127.0.0.1:8000/v1``.
        model: as the endpoint calls it.
        temperature: of its answers.
        folder: where answers are kept.
        key: sent as ``Authorization: Bearer``; empty: no such header.
    """

    url: str
    model: str
    temperature: float = 0.0
    folder: Path = field(default_factory=lambda: cache_home() / "generated")
    key: str = field(default_factory=lambda: next(filter(None, map(os.environ.get, KEY_VARIABLES)), ""), repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("--endpoint: expected the address of an API, such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise UsageError(
                f"--endpoint: an address holds no user, password or parameters; give a key in {KEY_VARIABLES[0]}"
            )
        if not self.key.isascii() or not self.key.isprintable() or self.key != self.key.strip():
            raise UsageError(f"the key in {' or '.join(KEY_VARIABLES)} has characters that no key has; set it anew")

    def known(self, prompt: str) -> str | None:
        """The answer that is kept; none where there is none."""
        kept = read_json_if_sound(self._path(prompt))
        answer = kept.get("answer") if isinstance(kept, dict) else None
        return answer if isinstance(answer, str) else None

    def ask(self, prompt: str) -> str:
        """The answer to a prompt, which is kept.

        Raises:
            UsageError: the endpoint refuses key, model or request.
            DownloadError: it cannot be reached, or gives no answer after several attempts.
        """
        answer = self.known(prompt)
        if answer is None:
            answer = self._answer(prompt)
            write_json(self._path(prompt), {"model": self.model, "answer": answer})
        return answer

    def _path(self, prompt: str) -> Path:
        return self.folder / f"{hash_json([self.model, self.temperature, prompt])}.json"

    def _answer(self, prompt: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(_NoRedirects)
        problem, pause = "", PAUSE
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(pause, LONGEST_PAUSE))
                pause *= 2
            try:
                with opener.open(request, timeout=TIMEOUT) as response:
                    return _content(parse_json(decoded(response.read(LONGEST_ANSWER))))
            except urllib.error.HTTPError as error:
                problem = f"status {error.code}"
                error.close()
                if error.code not in (408, 409, 425, 429) and error.code < 500:
                    raise UsageError(
                        f"{self.url}: it refuses the request ({problem}); {self._advice(error.code)}"
                    ) from None
                after = error.headers.get("Retry-After", "")
                pause = float(after) if after.isascii() and after.isdecimal() else pause
            except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                # The error itself may hold what was sent, so only its kind is said.
                reason = getattr(error, "reason", error)
                problem = getattr(reason, "strerror", None) or type(reason).__name__
        raise DownloadError(
            f"{self.url}: no answer after {ATTEMPTS} attempts ({problem}); the same command goes on from here"
        )

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            return f"set a key that it takes in {KEY_VARIABLES[0]} or {KEY_VARIABLES[1]}"
        if status == 404:
            return f"check the address (it ends in /v1 with most) and the model {self.model!r}"
        if 300 <= status < 400:
            return "it leads elsewhere, and a key is sent to no other address: give the final one"
        return f"check the model {self.model!r}"


def _content(value: Any) -> str:
    content = value["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError("an answer without text")
    return content
