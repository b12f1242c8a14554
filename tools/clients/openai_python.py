"""Holds a running server against OpenAI's own Python client: what that client expects, the server must do.

    python -m venv /somewhere/venv && /somewhere/venv/bin/pip install -r tools/clients/requirements.txt
    /somewhere/venv/bin/python tools/clients/openai_python.py http://127.0.0.1:8480 eu-… [CA.pem]

Lists models; completes (text, several prompts, stop strings, echo with probabilities, seeds); chats if a model has a chat
template; streams both with usage; and checks that a wrong key is 401, an unknown model 404 and a malformed body 400 with
the field's name. Prints one line per check; exit code 1 if one fails. Needs a key with the role `user` or `admin`. A server whose
filters may change answers gives no probabilities: those checks are skipped, with the reason.
"""

import sys

import httpx2 as httpx
import openai


def main(base_url: str, key: str, authority: str | None = None) -> int:
    base_url = base_url.rstrip("/").removesuffix("/v1")
    http = httpx.Client(verify=authority or True)
    client = openai.OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0, http_client=http)
    models = [model.id for model in client.models.list()]
    check("lists models", bool(models), models)
    for model in models:
        check(f"{model}: is shown", client.models.retrieve(model).id == model)
        answers(f"{model}: completions are answered", lambda: completes(client, model))
        answers(f"{model}: chats are answered", lambda: chats(client, model))
    refuses(client, base_url, http, models[0])
    return 1 if failures else 0


def completes(client: openai.OpenAI, model: str) -> None:
    ask = client.completions.create
    answer = ask(model=model, prompt="Dobrý deň", max_tokens=8, temperature=0)
    usage = answer.usage
    check(f"{model}: completes", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, answer.choices[0])
    same = ask(model=model, prompt="Dobrý deň", max_tokens=8, temperature=0)
    check(f"{model}: greedy answers repeat", same.choices[0].text == answer.choices[0].text)
    seeded = [
        ask(model=model, prompt="Labas", max_tokens=8, temperature=1.5, seed=11, n=2).choices for _ in range(2)
    ]
    texts = [[choice.text for choice in choices] for choices in seeded]
    check(f"{model}: a seed repeats", texts[0] == texts[1], texts[0])
    several = ask(model=model, prompt=["Tere", "Sveiki"], max_tokens=2, temperature=0)
    check(f"{model}: takes several prompts", [choice.index for choice in several.choices] == [0, 1])
    if scored := with_probabilities(
        f"{model}: echoes with probabilities",
        lambda: ask(model=model, prompt="Γειά", max_tokens=1, temperature=0, echo=True, logprobs=1),
    ):
        echoed = scored.choices[0]
        first = echoed.logprobs.token_logprobs[0]
        check(f"{model}: echoes with probabilities", echoed.text.startswith("Γειά") and first is None)
    whole = ask(model=model, prompt="a", max_tokens=24, temperature=0).choices[0].text
    if len(whole) > 4:
        stop = whole[2:4]
        cut = ask(model=model, prompt="a", max_tokens=24, temperature=0, stop=[stop]).choices[0]
        expected = whole[: whole.index(stop)]
        check(f"{model}: stops before a stop string", (cut.text, cut.finish_reason) == (expected, "stop"), cut)
    stream = ask(
        model=model, prompt="a", max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    check(f"{model}: streams the same text", text == whole, text)
    check(f"{model}: streams its usage", chunks[-1].usage is not None and not chunks[-1].choices)


def chats(client: openai.OpenAI, model: str) -> None:
    messages = [{"role": "user", "content": "Miten voit?"}]
    ask = client.chat.completions.create
    try:
        answer = ask(model=model, messages=messages, max_completion_tokens=16, temperature=0)
    except openai.BadRequestError as error:
        check(f"{model}: has no chat template and says so", error.code == "no_chat_template", error.message)
        return
    message = answer.choices[0].message
    check(f"{model}: chats", message.role == "assistant" and answer.usage.prompt_tokens > 0, message.content)
    stream = ask(model=model, messages=messages, max_completion_tokens=16, temperature=0, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    check(f"{model}: streams the same answer", text == message.content, text)
    if scored := with_probabilities(
        f"{model}: gives probabilities",
        lambda: ask(
            model=model, messages=messages, max_completion_tokens=2, temperature=0, logprobs=True, top_logprobs=3
        ),
    ):
        content = scored.choices[0].logprobs.content
        check(f"{model}: gives probabilities", all(len(token.top_logprobs) == 3 for token in content))


def with_probabilities(what: str, ask):
    """The answer; None where the server filters answers and therefore gives no probabilities, which is said."""
    try:
        return ask()
    except openai.BadRequestError as error:
        if error.code != "unsupported_field" or error.param != "logprobs":
            raise
        print(f"skip {what}: this server filters answers, and probabilities would repeat them unfiltered")
        return None


def refuses(client: openai.OpenAI, base_url: str, http: httpx.Client, model: str) -> None:
    wrong = openai.OpenAI(base_url=f"{base_url}/v1", api_key="eu-wrong", max_retries=0, http_client=http)
    refused("a wrong key is 401", openai.AuthenticationError, wrong.models.list)
    status = http.get(f"{base_url}/v1/models").status_code
    check("no key is 401", status == 401, status)
    status = http.get(f"{base_url}/anything").status_code
    check("no key is 401 on unknown routes too", status == 401, status)
    check("health answers without a key", http.get(f"{base_url}/healthz").status_code == 200)
    ask = client.completions.create
    refused("an unknown model is 404", openai.NotFoundError, lambda: ask(model="none", prompt="a"), "model")
    for field, value in [("max_tokens", "many"), ("temperature", 9), ("stop", 5), ("suffix", "x"), ("nonsense", 1)]:
        refused(
            f"a malformed body is 400 and names {field}",
            openai.BadRequestError,
            lambda: ask(model=model, prompt="a", extra_body={field: value}),
            field,
        )
    chat = client.chat.completions.create
    bad = [{"role": "robot", "content": "a"}]
    refused(
        "a malformed message is 400 and names its place",
        openai.BadRequestError,
        lambda: chat(model=model, messages=bad),
        "messages[0].role",
    )


failures: list[str] = []


def answers(what: str, checks) -> None:
    """Runs checks; a request that is refused unexpectedly is a failed check and not the end."""
    try:
        checks()
    except openai.APIStatusError as error:
        check(what, False, error)


def check(what: str, holds: bool, shown: object = "") -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {what} {shown if not holds else ''}".rstrip())
    if not holds:
        failures.append(what)


def refused(what: str, kind: type[openai.APIStatusError], call, field: str | None = None) -> None:
    try:
        call()
    except kind as error:
        check(what, error.param == field, error)
    except openai.APIStatusError as error:
        check(what, False, error)
    else:
        check(what, False, "it was answered")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
