"""Calls language models as applications do: with the clients that OpenAI and Anthropic publish.

Makes so many calls, which follow from a seed, through a gateway. The header `x-llm-script` tells the
stand-in behind it how to answer; tests/src/llm/upstream/script.rs has its fields. Prints one line of
JSON for each call: what the caller saw.

Calls that come to their end are those of the tenant `whole`; those that somebody gives up, of `broken`.
"""

import argparse
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai

OPENAI_MODELS = ["gpt-5", "gpt-5-mini"]
ANTHROPIC_MODELS = ["claude-opus-5", "claude-haiku-5"]
WORDS = ["weir", "river", "Zürich", "水", "flow", '"quoted"', "naïve", "line\nbreak", "🙂", "tokens"]


def text(chance, most=40):
    return " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, most)))


def messages(chance):
    """One to three messages; some have their text in parts."""
    found = []
    for turn in range(chance.choice([1, 1, 1, 3])):
        content = text(chance)
        if chance.random() < 0.3:
            content = [{"type": "text", "text": content}, {"type": "text", "text": text(chance, 5)}]
        found.append({"role": ["user", "assistant"][turn % 2], "content": content})
    return found


def plan(number, arguments):
    """What call `number` is: its API, parameters and script."""
    chance = random.Random(f"{arguments.seed}/{number}")
    api = chance.choice(["chat", "chat", "completions", "responses", "embeddings", "messages", "messages"])
    stream = api != "embeddings" and chance.random() < 0.6
    most = chance.choice([20, 60, 150])
    script = {
        "id": f"{arguments.seed}/{number}",
        "output": chance.randint(1, most),
        "cached": chance.choice([0, 0, chance.randint(1, 30)]),
        "crlf": chance.random() < 0.3,
        "pause_ms": chance.choice([0, 0, 1]),
    }
    if chance.random() < 0.8:
        script["cuts"] = chance.randint(1, 1_000_000)
    if api == "messages":
        script["written"] = chance.choice([0, 3])
    call = {"api": api, "stream": stream, "tenant": "whole", "leave_after": None, "script": script}
    if arguments.plain:
        pass
    elif chance.random() < 0.2:
        call["tenant"] = "broken"
        if stream and chance.random() < 0.6:
            call["leave_after"] = chance.randint(1, 8)
        else:
            script["break_after"] = chance.randint(0, 8) if stream else 0
    else:
        fate = chance.random()
        if fate < 0.10:
            script["status"] = chance.choice([400, 429, 500, 503, 529])
        elif fate < 0.15 and stream:
            script["fail_after"] = chance.randint(1, 6)
        elif fate < 0.20:
            script["silent"] = True
        elif fate < 0.25:
            script["gzip"] = True
    call["parameters"] = parameters(chance, api, stream, most)
    return call


def parameters(chance, api, stream, most):
    model = chance.choice(ANTHROPIC_MODELS if api == "messages" else OPENAI_MODELS)
    if api == "embeddings":
        return {"model": model, "input": [text(chance), text(chance)]}
    found = {"model": model}
    if stream:
        found["stream"] = True
    if api == "chat":
        found |= {"messages": messages(chance), "max_completion_tokens": most}
        if chance.random() < 0.2:
            found["n"] = 2
    elif api == "completions":
        found |= {"prompt": text(chance), "max_tokens": most}
    elif api == "responses":
        found |= {"input": messages_in_text(chance), "max_output_tokens": most}
    else:
        found |= {"messages": messages(chance), "max_tokens": most, "system": text(chance)}
    if stream and api in ("chat", "completions") and chance.random() < 0.7:
        found["stream_options"] = {"include_usage": True}
    return found


def messages_in_text(chance):
    return text(chance) if chance.random() < 0.5 else [{"role": "user", "content": text(chance)}]


def of_openai(usage):
    """The three meters, of OpenAI's numbers."""
    if not usage:
        return None
    prompt = getattr(usage, "prompt_tokens", None)
    prompt = usage.input_tokens if prompt is None else prompt
    details = getattr(usage, "prompt_tokens_details", None) or getattr(usage, "input_tokens_details", None)
    cached = (details.cached_tokens if details else 0) or 0
    output = getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None) or 0
    return {"input": prompt - cached, "cached": cached, "output": output}


def of_anthropic(usage, output):
    if not usage or usage.input_tokens is None:
        return None
    written = usage.cache_creation_input_tokens or 0
    return {"input": usage.input_tokens + written, "cached": usage.cache_read_input_tokens or 0, "output": output}


class Caller:
    """The clients of one thread: connections of its own, which get to any worker of the gateway."""

    def __init__(self, url, retries):
        told = {"api_key": "key-of-a-test", "max_retries": retries, "timeout": 60.0}
        self.openai = openai.OpenAI(base_url=f"{url}/v1", **told)
        self.anthropic = anthropic.Anthropic(base_url=url, **told)

    def create(self, call):
        endpoints = {
            "chat": self.openai.chat.completions,
            "completions": self.openai.completions,
            "responses": self.openai.responses,
            "embeddings": self.openai.embeddings,
            "messages": self.anthropic.messages,
        }
        headers = {"x-tenant-id": call["tenant"], "x-llm-script": json.dumps(call["script"])}
        raw = endpoints[call["api"]].with_raw_response.create(**call["parameters"], extra_headers=headers)
        return raw.retries_taken, raw.parse()

    def make(self, call, seen):
        seen["retries"], answer = self.create(call)
        seen["status"] = 200
        if not call["stream"]:
            is_anthropic = call["api"] == "messages"
            usage = getattr(answer, "usage", None)
            output = usage.output_tokens if is_anthropic and usage else 0
            seen["usage"] = of_anthropic(usage, output) if is_anthropic else of_openai(usage)
            return
        with answer:
            for count, event in enumerate(answer, 1):
                self.note(call["api"], event, seen)
                if count == call["leave_after"]:
                    seen["left"] = True
                    return

    def note(self, api, event, seen):
        """Adds up what an event of a stream says."""
        written = ""
        if api in ("chat", "completions"):
            for choice in event.choices:
                written += (choice.delta.content if api == "chat" else choice.text) or ""
            seen["usage"] = of_openai(event.usage) or seen["usage"]
        elif api == "responses":
            if event.type == "response.output_text.delta":
                written = event.delta
            elif event.type == "response.completed":
                seen["usage"] = of_openai(event.response.usage)
            elif event.type == "error":
                seen["error"] = event.code
        elif event.type == "message_start":
            seen["input"] = of_anthropic(event.message.usage, 0)
        elif event.type == "content_block_delta":
            written = event.delta.text
        elif event.type == "message_delta" and seen["input"]:
            seen["usage"] = seen["input"] | {"output": event.usage.output_tokens}
        seen["text_bytes"] += len(written.encode())


class Own(threading.local):
    """What each thread has: its caller. They share the lock of the output."""

    caller = None
    lock = threading.Lock()


def run(number, arguments, own):
    call = plan(number, arguments)
    seen = {
        "id": call["script"]["id"], "api": call["api"], "stream": call["stream"], "tenant": call["tenant"],
        "status": 0, "usage": None, "input": None, "text_bytes": 0, "left": False, "error": None,
        "retries": 0, "refused": [],
    }
    if own.caller is None:
        own.caller = Caller(arguments.url, arguments.retries)
    for _ in range(200):
        seen["error"] = None
        try:
            own.caller.make(call, seen)
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            seen["status"] = error.status_code
            seen["error"] = type(error).__name__
            headers = error.response.headers
            if error.status_code == 429 and "x-weir-reason" in headers:
                seen["refused"].append([headers["x-weir-reason"], headers.get("retry-after")])
                time.sleep(float(headers.get("retry-after", "1")))
                continue
        except Exception as error:  # the connection was cut, or the stream says that it failed
            seen["error"] = type(error).__name__
        break
    with own.lock:
        print(json.dumps(seen), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="of the gateway")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--retries", type=int, default=0, help="what the clients try again by themselves")
    parser.add_argument("--plain", action="store_true", help="nobody gives a call up, and nothing goes wrong")
    arguments = parser.parse_args()
    own = Own()
    with ThreadPoolExecutor(arguments.threads) as pool:
        for done in [pool.submit(run, number, arguments, own) for number in range(arguments.calls)]:
            done.result()


if __name__ == "__main__":
    main()
