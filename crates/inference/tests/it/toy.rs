//! The engine over a toy model: what comes back, in what order, and that nothing depends on company.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use inference::testing::{alphabet_engine, byte_tokenizer};
use inference::{
    Answer, Engine, EngineSettings, Event, FinishReason, Request, RequestFailure, Sampling, SubmitError,
    Usage,
};

fn tokens(text: &str) -> Vec<u32> {
    byte_tokenizer().encode_ordinary(text).unwrap()
}

fn request(prompt: &str) -> Request {
    Request::new("a", tokens(prompt))
}

fn engine() -> Engine {
    alphabet_engine(64, Duration::ZERO, &EngineSettings::default())
}

fn answer(engine: &Engine, request: Request) -> Answer {
    engine.submit(request).unwrap().wait().unwrap()
}

#[test]
fn an_answer_ends_where_the_model_ends_it() {
    let answer = answer(&engine(), request("uv"));
    assert_eq!(answer.text, "wxyz");
    assert_eq!(answer.ids, tokens("wxyz"));
    assert_eq!(answer.reason, Some(FinishReason::EndOfText));
    assert_eq!(answer.usage, Usage { prompt_tokens: 2, completion_tokens: 5 });
}

#[test]
fn an_answer_ends_at_its_limits() {
    let engine = engine();
    let limited = answer(&engine, Request { max_tokens: Some(3), ..request("a") });
    assert_eq!((limited.text.as_str(), limited.reason), ("bcd", Some(FinishReason::MaxTokens)));
    let nothing = answer(&engine, Request { max_tokens: Some(0), ..request("a") });
    assert_eq!((nothing.text.as_str(), nothing.usage.completion_tokens), ("", 0));
    let full = answer(&engine, request(&format!("{}a", " ".repeat(58))));
    assert_eq!((full.text.as_str(), full.reason), ("bcdef", Some(FinishReason::ContextLength)));
}

#[test]
fn a_text_that_cannot_fit_is_refused_before_it_is_encoded() {
    let engine = engine();
    assert_eq!(engine.context_length(), 64);
    engine.admit_text(&"a".repeat(64)).unwrap();
    for bytes in [100_000, 2_000_000] {
        let refused = |error: SubmitError| {
            error.to_string().contains(&format!("{bytes} bytes, more than the context of 64"))
        };
        assert!(refused(engine.admit_text(&"a".repeat(bytes)).unwrap_err()));
        assert!(refused(engine.admit_bytes(bytes).unwrap_err()));
    }
}

#[test]
fn stop_strings_and_stop_tokens_end_an_answer() {
    let engine = engine();
    let stopped = answer(&engine, Request { stop: vec!["xyz".into(), "efg".into()], ..request("a") });
    assert_eq!((stopped.text.as_str(), stopped.reason), ("bcd", Some(FinishReason::StopString)));
    assert_eq!(stopped.ids, tokens("bcd"), "tokens of the stop string stay inside");
    let stopped = answer(&engine, Request { stop_tokens: tokens("d"), ..request("a") });
    assert_eq!((stopped.text.as_str(), stopped.reason), ("bc", Some(FinishReason::EndOfText)));
    let unfinished =
        answer(&engine, Request { stop: vec!["fgX".into()], max_tokens: Some(6), ..request("a") });
    assert_eq!(unfinished.text, "bcdefg", "what only began like a stop string is delivered at the end");
}

#[test]
fn an_adapter_is_chosen_by_request() {
    let engine = engine();
    let backwards = Request { adapter: Some("backwards".into()), ..request("d") };
    assert_eq!(answer(&engine, backwards.clone()).text, "cba");
    assert_eq!(answer(&engine, Request { max_tokens: Some(2), ..request("d") }).text, "ef");
    let unknown = Request { adapter: Some("none".into()), ..backwards };
    assert_eq!(engine.submit(unknown).err(), Some(SubmitError::UnknownAdapter { name: "none".into() }));
}

#[test]
fn probabilities_come_with_their_alternatives() {
    let asked = Request { max_tokens: Some(1), logprobs: Some(2), prompt_logprobs: Some(1), ..request("ax") };
    let answer = answer(&engine(), asked);
    let chosen = &answer.logprobs[0];
    assert_eq!(chosen.token.bytes, b"y");
    assert_eq!(chosen.top.iter().map(|top| top.bytes.as_slice()).collect::<Vec<_>>(), [b"y", b"x"]);
    assert!((chosen.token.logprob - chosen.top[1].logprob - 2.0).abs() < 1e-5);
    assert_eq!(answer.prompt_logprobs.len(), 2);
    assert_eq!(answer.prompt_logprobs[0], None, "nothing stands before the first token");
    let second = answer.prompt_logprobs[1].as_ref().unwrap();
    assert_eq!((second.token.bytes.as_slice(), second.top[0].bytes.as_slice()), (&b"x"[..], &b"b"[..]));
    assert!(second.token.logprob < second.top[0].logprob - 3.0);
}

#[test]
fn an_answer_is_the_same_in_any_company_and_any_pieces() {
    let requests: Vec<Request> = (0..12usize)
        .map(|number| Request {
            max_tokens: Some(5 + number % 4),
            logprobs: Some(3),
            prompt_logprobs: (number % 3 == 0).then_some(1),
            adapter: (number % 5 == 0).then(|| "backwards".to_string()),
            sampling: Sampling {
                temperature: 1.5,
                top_p: 0.9,
                frequency_penalty: 0.5,
                repetition_penalty: 1.1,
                seed: number as u64,
                ..Sampling::default()
            },
            ..request(&["łąka", "βγ"][number % 2].repeat(number / 2 + 1))
        })
        .collect();
    let engine_with = |tokens_per_step| {
        alphabet_engine(64, Duration::ZERO, &EngineSettings { tokens_per_step, ..EngineSettings::default() })
    };
    let alone: Vec<Answer> = requests.iter().map(|request| answer(&engine(), request.clone())).collect();
    for tokens_per_step in [1, 7, 512] {
        let engine = engine_with(tokens_per_step);
        let handles: Vec<_> =
            requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
        for (handle, alone) in handles.into_iter().zip(&alone) {
            assert_eq!(&handle.wait().unwrap(), alone, "{tokens_per_step} tokens a step");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let engine = engine();
    let check = |request: Request, expected: &str| {
        let error = engine.submit(request).err().unwrap().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    };
    check(request(""), "the prompt is empty");
    check(request(&"a".repeat(64)), "the context holds 64 tokens; the prompt has 64 and 1 more");
    check(Request { max_tokens: Some(60), ..request("abcdef") }, "prompt has 6 and 60 more");
    check(Request::new("a", vec![260]), "token 260 does not exist");
    check(Request { stop: vec![String::new()], ..request("a") }, "`stop` is \"\"");
    let sampling = |sampling| Request { sampling, ..request("a") };
    check(sampling(Sampling { temperature: -1.0, ..Sampling::default() }), "`temperature` is -1");
    check(sampling(Sampling { top_p: 0.0, ..Sampling::default() }), "`top_p` is 0");
    check(
        sampling(Sampling { logit_bias: [(999, 1.0)].into(), ..Sampling::default() }),
        "`logit_bias`: token 999",
    );
}

#[test]
fn a_cancelled_request_ends_and_makes_room() {
    let settings = EngineSettings { running_requests: 1, ..EngineSettings::default() };
    let engine = alphabet_engine(64, Duration::from_millis(20), &settings);
    let first = engine.submit(request("a")).unwrap();
    let second = engine.submit(request("y")).unwrap();
    assert!(matches!(first.next_event(), Some(Event::Token { .. })));
    first.cancel();
    let last = std::iter::from_fn(|| first.next_event()).last();
    assert_eq!(last, Some(Event::Failed(RequestFailure::Cancelled)));
    assert_eq!(second.wait().unwrap().text, "z");
    drop(engine.submit(request("a")).unwrap());
    let started = Instant::now();
    while engine.load().running + engine.load().waiting > 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "a dropped request goes away");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_request_ends_when_its_time_is_over() {
    let engine = alphabet_engine(64, Duration::from_millis(20), &EngineSettings::default());
    let hurried = Request { time_limit: Some(Duration::from_millis(50)), ..request("a") };
    assert_eq!(engine.submit(hurried).unwrap().wait(), Err(RequestFailure::TimeLimit));
}

#[test]
fn the_queue_is_bounded_for_each_tenant() {
    let settings = EngineSettings { running_requests: 1, queued_requests: 2, ..EngineSettings::default() };
    let engine = alphabet_engine(64, Duration::from_millis(20), &settings);
    let mut handles = Vec::new();
    let error = loop {
        match engine.submit(request("a")) {
            Ok(handle) => handles.push(handle),
            Err(error) => break error,
        }
        assert!(handles.len() <= 3);
    };
    assert_eq!(error, SubmitError::QueueFull { waiting: 2 });
    engine.submit(Request { tenant: "b".to_string(), ..request("y") }).unwrap();
}

#[test]
fn a_tenant_that_floods_does_not_starve_another() {
    let settings = EngineSettings { running_requests: 4, ..EngineSettings::default() };
    let engine = Arc::new(alphabet_engine(64, Duration::from_millis(20), &settings));
    let flood: Vec<_> = (0..40).map(|_| engine.submit(request("a")).unwrap()).collect();
    let (sender, receiver) = mpsc::channel();
    let seen = Arc::downgrade(&engine);
    // Looked at on the engine's own thread: here, the flood might be over before anybody looks.
    let quiet = engine.submit_with(Request { tenant: "b".to_string(), ..request("y") }, move |event| {
        if let Event::Finished { .. } = event {
            let load = seen.upgrade().map(|engine| engine.load());
            let _ = sender.send(load);
        }
    });
    let load = receiver.recv().unwrap().unwrap();
    assert!(load.waiting > 20, "the flood still waits: {load:?}");
    drop((quiet, flood));
}

#[test]
fn a_stopped_engine_fails_what_runs() {
    let engine = alphabet_engine(64, Duration::from_millis(20), &EngineSettings::default());
    let handle = engine.submit(request("a")).unwrap();
    drop(engine);
    assert_eq!(handle.wait(), Err(RequestFailure::EngineStopped));
}
