"""Runs lm_eval against a running server, on tasks made from a folder of texts, and holds its figures against the server's own.

    python -m venv /somewhere/venv && /somewhere/venv/bin/pip install -r tools/clients/requirements.txt
    /somewhere/venv/bin/python tools/clients/lm_eval_local.py URL KEY MODEL samples/tiny/documents [--chat CHAT_MODEL]

Three tasks, which need no network: the probability of whole texts and a choice between two continuations (`local-completions`
with echo and the prompt's probabilities, tokens by /tokenize), and a continuation to be written (`local-completions`, and
`local-chat-completions` for CHAT_MODEL). The sum of log probabilities that lm_eval reports is computed here once more with
one plain request per text; the choice must be scored for every text. Prints what was found; exit code 1 if something differs.
The key should be one that may use MODEL and CHAT_MODEL alone where the server has several: lm_eval asks for the tokenizer
without naming a model.
"""

import argparse
import json
import math
import os
import pathlib
import tempfile

import requests

TEXTS = """
task: eulalia_texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
  - metric: bits_per_byte
"""

CHOICE = """
task: eulalia_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{beginning}}}}"
doc_to_choice: ["{{{{true}}}}", "{{{{other}}}}"]
doc_to_target: 0
target_delimiter: " "
metric_list:
  - metric: acc
  - metric: acc_norm
"""

WRITING = """
task: eulalia_writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{beginning}}}}"
doc_to_target: "{{{{true}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 16, do_sample: false, temperature: 0}}
metric_list:
  - metric: exact_match
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("model")
    parser.add_argument("texts", type=pathlib.Path, help="JSON lines files with `text`")
    parser.add_argument("--chat")
    parser.add_argument("--count", type=int, default=24)
    arguments = parser.parse_args()
    os.environ.update(OPENAI_API_KEY=arguments.key, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    import lm_eval
    from lm_eval.tasks import TaskManager

    url = arguments.url.rstrip("/").removesuffix("/v1")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        texts = write_tasks(arguments, folder)
        manager = TaskManager(include_path=str(folder), include_defaults=False)

        def run(kind, path, model, tasks, **more):
            options = {"model": model, "base_url": url + path, "auth_token": arguments.key, "max_retries": 1, **more}
            options = ",".join(f"{name}={value}" for name, value in options.items())
            return lm_eval.simple_evaluate(
                model=kind, model_args=options, tasks=tasks, task_manager=manager, log_samples=True, batch_size=1,
                bootstrap_iters=0, apply_chat_template=kind == "local-chat-completions",
            )

        found = run("local-completions", "/v1/completions", arguments.model,
                    ["eulalia_texts", "eulalia_choice", "eulalia_writing"], max_length=1_000_000)
        check_texts(found, texts, url, arguments)
        check_choice(found, len(texts))
        check_writing("local-completions", found, len(texts))
        if arguments.chat:
            found = run("local-chat-completions", "/v1/chat/completions", arguments.chat, ["eulalia_writing"])
            check_writing("local-chat-completions", found, len(texts))
    return 1 if failures else 0


def write_tasks(arguments, folder: pathlib.Path) -> list[str]:
    """Short texts from every file in turn, with a choice between their own continuation and another text's."""
    files = sorted(arguments.texts.glob("*.jsonl"))
    lines = [[json.loads(line)["text"] for line in file.read_text().splitlines()] for file in files]
    texts = [of_file[number][:300] for number in range(max(map(len, lines))) for of_file in lines if number < len(of_file)]
    texts = texts[: arguments.count]
    halves = [(text.split(" ", 8)) for text in texts]
    entries = [
        {"text": text, "beginning": " ".join(half[:8]), "true": half[-1], "other": halves[i - 1][-1]}
        for i, (text, half) in enumerate(zip(texts, halves))
    ]
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
    for name, task in [("texts", TEXTS), ("choice", CHOICE), ("writing", WRITING)]:
        (folder / f"{name}.yaml").write_text(task.format(data=data))
    return texts


def check_texts(found, texts, url, arguments) -> None:
    """Bits per byte as lm_eval found them, and from one request a text that we make ourselves."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {arguments.key}"
    info = session.get(f"{url}/tokenizer_info", params={"model": arguments.model}).json()
    ask = lambda path, body: session.post(url + path, json={"model": arguments.model, **body}).json()
    first = ask("/tokenize", {"prompt": info["eos_token"], "add_special_tokens": False})["tokens"]
    total = 0.0
    for text in texts:
        tokens = first + ask("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
        body = {"prompt": tokens, "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
        total += sum(ask("/v1/completions", body)["choices"][0]["logprobs"]["token_logprobs"][1:])
    ours = -total / math.log(2) / sum(len(text.encode()) for text in texts)
    theirs = found["results"]["eulalia_texts"]["bits_per_byte,none"]
    check(f"bits per byte {theirs:.4f}, computed once more {ours:.4f}", abs(ours - theirs) < 1e-4 * ours)


def check_choice(found, expected: int) -> None:
    samples = found["samples"]["eulalia_choice"]
    scored = [value for sample in samples for value in sample["filtered_resps"]]
    holds = len(samples) == expected and all(math.isfinite(probability) and probability < 0 for probability, _ in scored)
    accuracy = found["results"]["eulalia_choice"]["acc,none"]
    check(f"choice: {len(samples)} texts scored, the right continuation likelier in {accuracy:.2f} of them", holds)


def check_writing(kind: str, found, expected: int) -> None:
    answers = [sample["filtered_resps"][0] for sample in found["samples"]["eulalia_writing"]]
    holds = len(answers) == expected and all(isinstance(answer, str) and "." not in answer for answer in answers)
    check(f"{kind}: {len(answers)} continuations, each ended before the stop string", holds and any(answers), answers)


failures: list[str] = []


def check(what: str, holds: bool, shown: object = "") -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {what} {shown if not holds else ''}".rstrip())
    if not holds:
        failures.append(what)


if __name__ == "__main__":
    raise SystemExit(main())
