//! Chat prompts: byte for byte those of `transformers`, and bounded whatever the template does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokenizer::{Conversation, Error, Tokenizer};

use crate::cases::conversation;

/// Templates of the golden file, by name.
const TEMPLATES: [(&str, &str); 8] = [
    ("alternating", include_str!("../golden/chat/alternating.jinja")),
    ("marked_turns", include_str!("../golden/chat/marked_turns.jinja")),
    ("metadata", include_str!("../golden/chat/metadata.jinja")),
    ("named_roles", include_str!("../golden/chat/named_roles.jinja")),
    ("python_values", include_str!("../golden/chat/python_values.jinja")),
    ("reasoning", include_str!("../golden/chat/reasoning.jinja")),
    ("statements", include_str!("../golden/chat/statements.jinja")),
    ("typed_tools", include_str!("../golden/chat/typed_tools.jinja")),
];

fn hello() -> Conversation {
    conversation(&json!({"messages": [{"role": "user", "content": "Sveiki"}], "add_generation_prompt": true}))
}

fn render(template: &str, conversation: &Conversation) -> Result<String, String> {
    let tokenizer = Tokenizer::with_chat_template(template, &json!({})).unwrap();
    tokenizer.render_conversation(conversation).map_err(|error| error.to_string())
}

#[test]
fn prompts_are_those_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("../golden/chat.json")).unwrap();
    let expected = golden["expected"].as_object().unwrap();
    assert_eq!(expected.len(), TEMPLATES.len());
    let mut rendered = 0;
    for (name, template) in TEMPLATES {
        let tokenizer = Tokenizer::with_chat_template(template, &golden["tokens"]).unwrap();
        for (case, expected) in expected[name].as_object().unwrap() {
            let found = tokenizer.render_conversation(&conversation(&golden["conversations"][case]));
            let message = found.as_ref().err().map(Error::to_string);
            assert_eq!(found.as_deref().ok(), expected.as_str(), "{name}, {case}: {message:?}");
            rendered += usize::from(found.is_ok());
        }
    }
    assert!(rendered > 350, "{rendered}");
}

#[test]
fn a_refusal_says_why() {
    let check = |template: &str, conversation: &Conversation, words: &str| {
        let message = render(template, conversation).unwrap_err();
        assert!(message.contains(words) && message.len() < 1_000, "{template}: {message}");
    };
    let hello = hello();
    check("{{ raise_exception('no system turn') }}", &hello, "no system turn");
    check("\n\n{{ messages[0].absent.deeper }}", &hello, "line 3");
    check("{{ messages | tojson(indent=9999) }}", &hello, "at most 64");
    check("{{ nothing | tojson }}", &hello, "undefined");
    check("{% include 'passwd' %}", &hello, "no place in a chat template");
    check("{{ strftime_now('%Q') }}", &hello, "%Q");
    check("{{ strftime_now('%Y') }}", &Conversation { now: None, ..hello.clone() }, "other tokens every day");
    check("x", &Conversation::default(), "empty");
    check("x", &Conversation { messages: vec![json!("hi")], ..Conversation::default() }, "an object");
    let open = Conversation { continue_final_message: true, ..hello.clone() };
    check("{{ messages[0].content }}", &open, "at once");
    let open = Conversation { add_generation_prompt: false, ..open };
    check("{{ messages[0].content | upper }}", &open, "changes the last message");
    assert_eq!(render("{{ messages[0].content }}</s>", &open).unwrap(), "Sveiki");
}

/// Programs of a template that would go on for ever, take all memory, or all of the stack.
fn hostile() -> Vec<String> {
    let mut templates: Vec<String> = [
        // Time.
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set s = 'abcdefgh' * 100000 %}{% for a in range(99999) %}{{ s | length }}{% if s == s ~ '' %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for a in range(99999) %}{% set t = s.count('aa') %}{% set u = s[::-1] %}{% endfor %}",
        "{% set l = range(9999) | list %}{% for a in range(99999) %}{% set t = l | sort %}{% set u = 5 in l %}{% endfor %}",
        "{% set s = 'ab' * 100000 %}{% for a in range(9999) %}{% set t = s.strip(s) %}{% endfor %}",
        // Texts.
        "{{ 'a' * 10 ** 9 }}",
        "{{ 'a' * 1000000 * 1000000 }}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s.replace('b', n.s) %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s | replace('b', n.s) %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = [n.s, n.s] | join %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s.join([n.s, n.s, n.s]) %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = '%s%s' | format(n.s, n.s) %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = '{0}{0}'.format(n.s) %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = '%s%s' % (n.s, n.s) %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s | tojson ~ n.s | tojson %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = n.s | indent(n.s) %}{% set n.s = n.s ~ '\n' ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t %}{% endfor %}",
        "{% macro m(s) %}{{ s }}{{ s }}{% endmacro %}{% set n = namespace(s='ab') %}{% for a in range(99) %}{% set n.s = m(n.s) %}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for a in range(99999) %}{{ s }}{% endfor %}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%.999999999f' | format(1.5) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'a'.ljust(10 ** 9) * 10 ** 6 }}",
        "{{ ('a' * 8000) | indent(10 ** 9) }}",
        "{{ messages | tojson(indent=' ' * 10 ** 7) }}",
        // Lists.
        "{{ range(10 ** 9) }}",
        "{{ range(10 ** 9) | list | length }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ ([1] * 10 ** 6) * 10 ** 6 }}",
        "{% set n = namespace(l=[1]) %}{% for a in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}{{ n.l | length }}",
        "{% set n = namespace(l=[1]) %}{% for a in range(99) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
        "{% set n = namespace(l=[1]) %}{% for a in range(26) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
        "{% set n = namespace(l=[1]) %}{% for a in range(26) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l == n.l }}",
        "{% set n = namespace(d={}) %}{% for a in range(99) %}{% set n.d = {'a': n.d, 'b': n.d} %}{% endfor %}{{ n.d }}",
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}{{ n | tojson }}",
        "{% set n = namespace() %}{% set n.n = [n] %}{{ n == n }}",
        "{% set n = namespace(l=0) %}{% for a in range(99999) %}{% set n.l = [n.l] %}{% endfor %}",
        "{% set n = namespace(l=0) %}{% for a in range(99999) %}{% set n.l = namespace(l=n.l) %}{% endfor %}",
        "{% set n = namespace(l=0) %}{% for a in range(99999) %}{% set m = namespace() %}{% set m.l = n.l %}{% set n.l = m %}{% endfor %}",
        "{% set n = namespace(l=0) %}{% for a in range(99999) %}{% set n.l = dict(l=n.l) %}{% endfor %}",
        "{% set n = namespace(l=[0]) %}{% for a in range(99999) %}{% set n.l = n.l | batch(1) | list %}{% endfor %}",
        "{{ ('a' * 5000000) | list | length }}{{ ('a' * 5000000) | list | length }}",
        "{{ 'a'.split('') }}",
    ]
    .map(str::to_owned)
    .to_vec();
    // Programs that are nested deep.
    let nested = |open: &str, middle: &str, close: &str, count: usize| {
        open.repeat(count) + middle + &close.repeat(count)
    };
    templates.push(nested("{% if true %}", "x", "{% endif %}", 9_000));
    templates.push(format!("{{{{ {} }}}}", nested("(", "1", ")", 50_000)));
    templates.push(format!("{{{{ {} }}}}", nested("[", "1", "]", 50_000)));
    templates.push(format!("{{{{ 1{} }}}}", "+1".repeat(100_000)));
    templates.push(format!("{{{{ 1{} }}}}", "~1".repeat(100_000)));
    templates.push(format!("{{{{ 'a'{} }}}}", "|trim".repeat(50_000)));
    templates.push(format!("{{{{ messages{} }}}}", ".a".repeat(100_000)));
    templates.push(format!("{{{{ {}1 }}}}", "not ".repeat(60_000)));
    templates.push(format!("{{{{ {}1 }}}}", "-".repeat(200_000)));
    templates.push(format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(20_000)));
    templates.push(format!("{{{{ ['{}'] }}}}", "a".repeat(300_000)));
    templates.push("{{ ".repeat(80_000));
    templates.push("{% for".repeat(40_000));
    templates
}

#[test]
fn hostile_templates_end_soon_and_in_an_error() {
    let conversation = hello();
    for template in hostile() {
        let began = Instant::now();
        let result = render(&template, &conversation);
        let shown: String = template.chars().take(200).collect();
        // Seconds alone; two slow cores without optimisation may have many others beside.
        assert!(began.elapsed() < Duration::from_secs(600), "{shown}: {:?}", began.elapsed());
        let problem = result.map(|text| text.len()).expect_err(&shown);
        assert!(problem.len() < 2_000, "{shown}: {problem}");
    }
}

#[test]
fn a_long_conversation_is_within_the_limits() {
    let turn = |number: usize| {
        let role = if number.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": "Wat is dit voor een vraag? ".repeat(100)})
    };
    let messages: Vec<Value> = (0..801).map(turn).collect();
    let conversation = Conversation { messages, add_generation_prompt: true, ..hello() };
    for (name, template) in TEMPLATES {
        if !["python_values", "statements"].contains(&name) {
            let tokenizer =
                Tokenizer::with_chat_template(template, &json!({"bos_token": "<s>", "eos_token": "</s>"}))
                    .unwrap();
            let text = tokenizer.render_conversation(&conversation);
            let text = text.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(text.len() > 2_000_000, "{name}");
        }
    }
}

/// A folder of a small vocabulary with these files beside it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = r#"{"added_tokens": [{"id": 2, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;
    for (name, text) in [("tokenizer.json", vocabulary)].iter().chain(files) {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn a_conversation_with_tools_has_the_template_for_them() {
    let list = r#"{"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]}"#;
    let of_files = [
        ("tokenizer_config.json", list),
        ("chat_template.jinja", "file"),
        ("additional_chat_templates/tool_use.jinja", "file for tools"),
    ];
    let plain = hello();
    let with_tools = Conversation { tools: Some(vec![json!({"type": "function"})]), ..hello() };
    for (files, expected) in [
        (&of_files[..1], ["plain", "tools"]),
        (&of_files[..2], ["file", "file"]),
        (&of_files, ["file", "file for tools"]),
    ] {
        let tokenizer = Tokenizer::load(folder(files).path()).unwrap();
        let found =
            [&plain, &with_tools].map(|conversation| tokenizer.render_conversation(conversation).unwrap());
        assert_eq!(found, expected);
        // So has what is written elsewhere: into another folder, or a GGUF file.
        let written = tokenizer::tokenizer_files(folder(files).path()).unwrap().unwrap();
        let copy = folder(&[("tokenizer_config.json", &written.config.to_string())]);
        let tokenizer = Tokenizer::load(copy.path()).unwrap();
        let found =
            [&plain, &with_tools].map(|conversation| tokenizer.render_conversation(conversation).unwrap());
        assert_eq!(found, expected);
    }
}

#[cfg(unix)]
#[test]
fn what_has_no_end_is_not_read() {
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
        let folder = folder(&[]);
        std::os::unix::fs::symlink("/dev/zero", folder.path().join(name)).unwrap();
        let message = Tokenizer::load(folder.path()).err().unwrap().to_string();
        assert!(message.contains(name) && message.contains("no regular file"), "{message}");
    }
}

#[test]
fn tokens_of_the_configuration_alone_count() {
    let with = |id: u32, token: &str| {
        let config = json!({
            "sep_token": "<sep>", "chat_template": "{{ sep_token }}{{ cls_token }}",
            "added_tokens_decoder": {"2": {"content": "<s>", "special": true}, id.to_string(): {"content": token, "special": true}},
        });
        folder(&[("tokenizer_config.json", &config.to_string())])
    };
    let tokenizer = Tokenizer::load(with(3, "<end>").path()).unwrap();
    assert_eq!(tokenizer.encode("a<end>b<s>").unwrap(), [0, 3, 1, 2]);
    assert_eq!((tokenizer.special_id("<end>"), tokenizer.vocabulary_size()), (Some(3), 4));
    assert_eq!(tokenizer.render_conversation(&hello()).unwrap(), "<sep>");
    // One that the vocabulary has as text counts from now on.
    let tokenizer = Tokenizer::load(with(1, "b").path()).unwrap();
    assert_eq!((tokenizer.special_id("b"), tokenizer.vocabulary_size()), (Some(1), 3));
    let message = Tokenizer::load(with(9, "<end>").path()).err().unwrap().to_string();
    assert!(message.contains("<end>") && message.contains("token 9"), "{message}");
}
