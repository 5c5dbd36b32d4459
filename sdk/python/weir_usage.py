"""Reports usage to Weir: a thin client of POST /v1/usage, with the standard library only.

    client = Client("http://127.0.0.1:8080", token="weir_usage_…")
    client.report("acme", tokens=1200, model="gpt-4o")          # it was used: recorded in any case
    try:
        client.take("acme", tokens=500)                         # it will be used: taken first
    except LimitExceeded as refused:
        print(refused.violated, refused.retry_after)

Each report has a key that is kept when the call is repeated, so that it counts once. Give a key of
your own (a job's id) where your program may be started again.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
import uuid
from typing import Any, Mapping, Optional

__all__ = ["Client", "LimitExceeded", "WeirError"]


class WeirError(Exception):
    """The call was not carried out. `status` is None where there was no answer."""

    def __init__(self, message: str, key: str, status: Optional[int] = None, problem: Optional[Mapping[str, Any]] = None):
        super().__init__(message)
        #: Repeat the report with this key, so that it counts once.
        self.key = key
        self.status = status
        #: The body of the answer (application/problem+json), empty without one.
        self.problem = problem or {}


class LimitExceeded(WeirError):
    """The tenant has not that much, and nothing was taken."""

    #: Seconds until it may succeed; None where it never can.
    retry_after: Optional[float] = None

    @property
    def violated(self) -> list:
        """The names of the limits in the way."""
        return list(self.problem.get("violated-policies", []))


class Client:
    """Thread-safe. `token` is an access token with the role `usage`.

    A call that fails for the moment (no answer, 5xx) is repeated up to `retries` times, after
    `Retry-After` or a growing pause. A refusal for a limit is repeated too while the wait is at most
    `max_wait` seconds, 0 by default: then it is raised at once.
    """

    def __init__(self, base_url: str, token: str, *, timeout: float = 10.0, retries: int = 5, max_wait: float = 0.0):
        self._url = base_url.rstrip("/") + "/v1/usage"
        self._token = token
        self._timeout = timeout
        self._retries = retries
        self._max_wait = max_wait

    def report(self, tenant: str, *, tokens: int = 0, requests: int = 0, meter: str = "default", model: str = "",
               time: Optional[str] = None, key: Optional[str] = None) -> dict:
        """Records what was used, in any case. `time` is RFC 3339, such as 2026-01-31T10:15:00Z; now without it."""
        body = {"tenant": tenant, "meter": meter, "model": model, "tokens": tokens, "requests": requests, "check": False}
        if time is not None:
            body["time"] = time
        return self._post(body, key)

    def take(self, tenant: str, *, tokens: int = 0, requests: int = 0, meter: str = "default", model: str = "",
             key: Optional[str] = None) -> dict:
        """Takes what is about to be used, all of it or nothing; raises LimitExceeded where it is not there."""
        body = {"tenant": tenant, "meter": meter, "model": model, "tokens": tokens, "requests": requests, "check": True}
        return self._post(body, key)

    def _post(self, body: Mapping[str, Any], key: Optional[str]) -> dict:
        key = key or str(uuid.uuid4())
        data = json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json", "idempotency-key": key}
        for attempt in range(self._retries + 1):
            error, wait = self._once(urllib.request.Request(self._url, data, headers, method="POST"), key)
            if not isinstance(error, WeirError):
                return error
            if wait is None:
                if isinstance(error, LimitExceeded) or (error.status is not None and error.status < 500):
                    raise error
                wait = min(0.1 * 2 ** attempt, 5.0) * random.uniform(0.5, 1.0)
            is_limit = isinstance(error, LimitExceeded)
            if attempt == self._retries or (is_limit and wait > self._max_wait):
                raise error
            time.sleep(wait if is_limit else min(wait, 30.0))
        raise AssertionError("the last attempt returns or raises")

    def _once(self, request: urllib.request.Request, key: str) -> tuple:
        """The answer and None, or an error and how long to wait where the server said so."""
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                return json.load(answer), None
        except urllib.error.HTTPError as answer:
            try:
                problem = json.load(answer)
            except (ValueError, OSError):
                problem = {}
            problem = problem if isinstance(problem, dict) else {}
            message = str(problem.get("detail") or answer.reason)
            wait = _seconds(answer.headers.get("retry-after"))
            if answer.code == 429:
                refused = LimitExceeded(message, key, 429, problem)
                refused.retry_after = wait
                return refused, wait
            return WeirError(message, key, answer.code, problem), wait if answer.code >= 500 else None
        except (OSError, ValueError, http.client.HTTPException) as cause:
            return WeirError(f"no answer: {cause}", key), None


def _seconds(retry_after: Optional[str]) -> Optional[float]:
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None
