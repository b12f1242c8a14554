"""Chat prompts as transformers renders them, for the tests of the crate `tokenizer`.

    python tools/oracles/make_chat_templates.py
    python tools/oracles/make_chat_templates.py --templates FOLDER --output FILE

The first rewrites crates/tokenizer/tests/golden/chat.json from the templates of crates/tokenizer/tests/golden/chat, which
are ours and use what the published ones use. The second renders the templates of any folder (`*.jinja`), published ones for
instance; `cargo run -p tokenizer --example check_templates FILE` then says where ours differs.

Each case holds what `apply_chat_template` was given, and the text that came out, or `null` where it refused. The clock
stands still at NOW.
"""

import argparse
import datetime
import json
import pathlib

import tokenizers
import transformers
from transformers.utils import chat_template_utils

GOLDEN = pathlib.Path(__file__).parents[2] / "crates" / "tokenizer" / "tests" / "golden"
NOW = (2026, 3, 9, 7, 5, 4)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

# "Do you understand me?", or nearly so, in the 24 official languages of the Union.
GREETINGS = {
    "bg": "Разбираш ли ме?", "cs": "Rozumíš mi?", "da": "Forstår du mig?", "de": "Verstehst du mich – größer?",
    "el": "Με καταλαβαίνεις;", "en": "Do you understand me?", "es": "¿Me entiendes, señor?", "et": "Kas sa mõistad mind?",
    "fi": "Ymmärrätkö minua?", "fr": "Est-ce que tu me comprends, cœur ?", "ga": "An dtuigeann tú mé?",
    "hr": "Razumiješ li me? Čuješ?", "hu": "Értesz engem? Űr, őr.", "it": "Mi capisci? Perché no?", "lt": "Ar supranti mane, žmogau?",
    "lv": "Vai tu mani saproti, ķēniņ?", "mt": "Qed tifhimni? Ħaġa oħra.", "nl": "Begrijp je mij, ĳsbeer?",
    "pl": "Czy mnie rozumiesz? Zażółć gęślą jaźń.", "pt": "Você me entende? Ação.", "ro": "Mă înțelegi? Știu.",
    "sk": "Rozumieš mi? Vŕba, ľúbiť.", "sl": "Me razumeš? Češnja.", "sv": "Förstår du mig? Åäö.",
}

TOOLS = [
    {"type": "function", "function": {
        "name": "weather", "description": "Says the weather at a \"place\" <now> & later.",
        "parameters": {"type": "object", "properties": {
            "place": {"type": "string", "description": "Where, such as Łódź"},
            "unit": {"type": "string", "enum": ["celsius", "kelvin"], "default": "celsius"},
            "days": {"type": "array", "items": {"type": "integer"}, "nullable": True},
            "exact": {"type": "boolean", "default": False}, "limit": {"type": "number", "default": 0.5}},
            "required": ["place"]}}},
    {"type": "function", "function": {
        "name": "items", "description": "Lists.", "parameters": {"type": "object", "properties": {
            "filter": {"type": "object", "properties": {"items": {"type": "string"}, "keys": {"type": ["string", "null"]}},
                       "required": ["items"]}}}, "return": {"type": "string"}}},
]


def call(number: int, name: str, arguments) -> dict:
    return {"type": "function", "id": f"call{number:05}", "function": {"name": name, "arguments": arguments}}


def conversations() -> dict:
    """What the templates are given, by name."""
    user = lambda text: {"role": "user", "content": text}
    answer = lambda text, **more: {"role": "assistant", "content": text, **more}
    system = lambda text: {"role": "system", "content": text}
    result = lambda number, text, **more: {"role": "tool", "content": text, "tool_call_id": f"call{number:05}", **more}
    cases = {
        "one": {"messages": [user("Hello")]},
        "system": {"messages": [system("Be brief. /no_think"), user("Hello")]},
        "turns": {"messages": [user("A"), answer("B"), user("C"), answer("D"), user("E")]},
        "ended": {"messages": [system("S"), user("A"), answer("B\n")], "add_generation_prompt": False},
        "continued": {"messages": [user("A"), answer("The answer is ")], "add_generation_prompt": False,
                      "continue_final_message": True},
        "continued trimmed": {"messages": [user("A"), answer("The answer is")], "add_generation_prompt": False,
                              "continue_final_message": True},
        "empty": {"messages": [system(""), user(""), answer(""), user(" ")]},
        "spaces": {"messages": [user("  \t a \n\n"), answer("\n\nb\u00a0\u2003 "), user("\r\nc\r\n\x85\x1c")]},
        "markup": {"messages": [user("<b>\"it's\" & 'so'</b> \\ / {{ x }} {% y %} {# z #}"), answer("`\u2028\u2029`"), user("#")]},
        "controls": {"messages": [user("".join(map(chr, range(1, 32))) + "\x7f\x80\ufeff\ufffe"), answer("\U0001f600\U0001d4b3 é"),
                                  user("e\u0301")]},
        "special": {"messages": [user("</s><s>[INST] <|im_end|>"), answer("<think>\n\n</think>"), user("?")]},
        "reasoning": {"messages": [user("A"), answer("<think>\nwhy\nso\n</think>\n\nB"), user("C"),
                                   answer("D", reasoning_content="because\n"), user("E")]},
        "thinking": {"messages": [user("A")], "variables": {"enable_thinking": True}},
        "not thinking": {"messages": [user("A")], "variables": {"enable_thinking": False}},
        "tools": {"messages": [system("S"), user("Weather?")], "tools": TOOLS},
        "no tools": {"messages": [user("Weather?")], "tools": []},
        "calls": {"messages": [user("Weather?"), {"role": "assistant", "tool_calls": [
            call(1, "weather", {"place": "Łódź \"x\" <y>", "days": [1, 2], "exact": True, "limit": 1e-7, "none": None}),
            call(2, "items", {})]}, result(1, "{\"t\": 21.5}", name="weather"), result(2, "[]", name="items"),
            answer("Warm & dry."), user("Thanks")], "tools": TOOLS},
        "called with text": {"messages": [user("Weather?"), answer("Let me see.", tool_calls=[call(3, "weather", "{\"place\": \"Ρόδος\"}")]),
                                          result(3, "ok")], "tools": TOOLS},
        "none": {"messages": [user("A"), {"role": "assistant", "content": None, "tool_calls": [call(4, "weather", {"a": []})]},
                              result(4, "x")], "tools": TOOLS},
        "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Ħelow "}, {"type": "text", "text": "dinja"}]}]},
        "mapped": {"messages": [{"role": "system", "content": {"text": "S"}}, {"role": "user", "content": {"parts": [
            {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}, {"role": "assistant", "content": {"blocks": [
                {"type": "thoughts", "text": "hm"}, {"type": "response", "text": "c"}]}}, {"role": "user", "content": {"parts": []}}]},
        "order": {"messages": [answer("A"), user("B")]},
        "twice": {"messages": [user("A"), user("B")]},
        "late system": {"messages": [user("A"), system("B"), user("C")]},
        "stranger": {"messages": [user("A"), {"role": "émigré", "content": "B"}]},
        "documents": {"messages": [user("A")], "documents": [{"title": "Ä", "text": "b <c>"}]},
        "numbers": {"messages": [user("A")], "variables": {"numbers": [
            0, -1, 7, 1.0, -0.0, 0.1, 1e16, 1e15, 123456789.125, 1e-4, 1e-5, 1.5e300, 2**53, -2**63, 2**64 - 1, 1e22, 5e-324],
            "nested": {"b": [1, [2.5, None, True], {}], "a": {"ключ": "\x00\x1f\"\\/<>&'\u2028\x7f", "": []}}}},
    }
    for language, text in GREETINGS.items():
        cases[language] = {"messages": [system(text), user(text + "\n" + text.upper()), answer(text), user(text)]}
    for case in cases.values():
        case.setdefault("add_generation_prompt", True)
    return cases


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(*NOW)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    model = tokenizers.models.WordLevel({token: number for number, token in enumerate(TOKENS.values())}, unk_token="<unk>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), **TOKENS)


def rendered(template: str, case: dict):
    """The prompt, or nothing where the template or the conversation is refused."""
    given = {key: value for key, value in case.items() if key not in ("messages", "variables")}
    try:
        return tokenizer().apply_chat_template(
            json.loads(json.dumps(case["messages"])), chat_template=template, tokenize=False, **given, **case.get("variables", {}))
    except Exception:
        return None


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--templates", type=pathlib.Path, default=GOLDEN / "chat")
    arguments.add_argument("--output", type=pathlib.Path, default=GOLDEN / "chat.json")
    arguments = arguments.parse_args()
    chat_template_utils.datetime = Clock
    cases = conversations()
    templates = {path.stem: path.read_bytes().decode() for path in sorted(arguments.templates.glob("*.jinja"))}
    expected = {name: {case: rendered(template, given) for case, given in cases.items()} for name, template in templates.items()}
    golden = {"transformers": transformers.__version__, "now": NOW, "tokens": TOKENS, "conversations": cases, "expected": expected}
    if arguments.templates != GOLDEN / "chat":
        golden["templates"] = templates
    arguments.output.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    refused = sum(text is None for texts in expected.values() for text in texts.values())
    print(f"{len(templates)} templates, {len(cases)} conversations, {refused} refused")


if __name__ == "__main__":
    main()
