//! What requests share: the computed beginnings of their texts, within one tenant and never beyond; guesses ahead; and
//! the vectors of texts.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use inference::testing::{alphabet_engine, byte_tokenizer};
use inference::{
    Answer, Engine, EngineFigures, EngineSettings, Event, FinishReason, Pooling, Request, RequestFailure,
    Sampling, SubmitError, seed_of_answer,
};

fn tokens(text: &str) -> Vec<u32> {
    byte_tokenizer().encode_ordinary(text).unwrap()
}

/// 3 tokens after a text.
fn request(tenant: &str, text: &str) -> Request {
    Request { max_tokens: Some(3), ..Request::new(tenant, tokens(text)) }
}

fn engine(settings: EngineSettings) -> Engine {
    alphabet_engine(64, Duration::ZERO, &settings)
}

fn answer(engine: &Engine, request: Request) -> Answer {
    engine.submit(request).unwrap().wait().unwrap()
}

/// What a request adds to the figures.
fn costs(engine: &Engine, request: Request) -> EngineFigures {
    let before = engine.load().figures;
    answer(engine, request);
    let after = engine.load().figures;
    EngineFigures {
        steps: after.steps - before.steps,
        computed_tokens: after.computed_tokens - before.computed_tokens,
        prefix_hits: after.prefix_hits - before.prefix_hits,
        prefix_tokens_saved: after.prefix_tokens_saved - before.prefix_tokens_saved,
        guessed_tokens: after.guessed_tokens - before.guessed_tokens,
        accepted_tokens: after.accepted_tokens - before.accepted_tokens,
    }
}

#[test]
fn a_beginning_is_computed_once_for_a_tenant_and_never_for_another() {
    let engine = engine(EngineSettings::default());
    let saved = |tenant: &str, text: &str| {
        let costs = costs(&engine, request(tenant, text));
        // Two rows beyond the prompt: the third token is never read.
        assert_eq!(costs.computed_tokens + costs.prefix_tokens_saved, text.len() as u64 + 2);
        assert_eq!(costs.prefix_hits, u64::from(costs.prefix_tokens_saved > 0));
        costs.prefix_tokens_saved
    };
    assert_eq!(saved("a", "0123456789ab"), 0);
    assert_eq!(saved("a", "0123456789ab"), 8, "blocks of 4; the last token is always computed");
    assert_eq!(saved("a", "0123456789abx"), 12);
    assert_eq!(saved("a", "0123456789abcde"), 12, "the answer c, d was in no complete block");
    assert_eq!(saved("a", "01x3456789ab"), 0);
    assert_eq!(saved("b", "0123456789ab"), 0);
    let backwards = Request { adapter: Some("backwards".into()), ..request("a", "0123456789ab") };
    assert_eq!(costs(&engine, backwards).prefix_tokens_saved, 0, "an adapter computes other values");
}

#[test]
fn an_answer_is_the_beginning_of_the_next_turn() {
    let engine = engine(EngineSettings::default());
    let first = Request { max_tokens: Some(9), ..request("a", "01234a") };
    assert_eq!(answer(&engine, first).text, "bcdefghij");
    assert_eq!(costs(&engine, request("a", "01234abcdefghij and more")).prefix_tokens_saved, 12);
}

#[test]
fn without_the_cache_everything_is_computed() {
    let engine = engine(EngineSettings { prefix_cache: false, ..EngineSettings::default() });
    for _ in 0..2 {
        assert_eq!(costs(&engine, request("a", "0123456789ab")).prefix_tokens_saved, 0);
    }
}

#[test]
fn rows_that_are_all_wanted_are_all_computed() {
    let engine = engine(EngineSettings::default());
    answer(&engine, request("a", "0123456789ab"));
    let scored = Request { prompt_logprobs: Some(0), ..request("a", "0123456789ab") };
    assert_eq!(answer(&engine, scored.clone()).prompt_logprobs.len(), 12);
    assert_eq!(costs(&engine, scored).prefix_tokens_saved, 0);
    let mean = Request::embedding("a", tokens("0123456789ab"), Pooling::Mean);
    assert_eq!(costs(&engine, mean).prefix_tokens_saved, 0);
    let last = Request::embedding("a", tokens("0123456789ab"), Pooling::Last);
    assert_eq!(costs(&engine, last).prefix_tokens_saved, 8);
}

#[test]
fn several_answers_to_one_prompt_read_it_once() {
    // Slow enough for all of them to be there before the first is read.
    let engine = alphabet_engine(
        128,
        Duration::from_millis(15),
        &EngineSettings { tokens_per_step: 16, ..EngineSettings::default() },
    );
    let text = "0123456789".repeat(6);
    let sampled = |index: u64| Request {
        sampling: Sampling { temperature: 1.5, seed: seed_of_answer(7, index), ..Sampling::default() },
        ..request("a", &text)
    };
    let handles: Vec<_> = (0..5).map(|index| engine.submit(sampled(index)).unwrap()).collect();
    let together: Vec<Answer> = handles.into_iter().map(|handle| handle.wait().unwrap()).collect();
    let figures = engine.load().figures;
    assert_eq!(figures.prefix_tokens_saved, 4 * 59, "all but the last token, the parted block copied");
    let alone = alphabet_engine(
        128,
        Duration::ZERO,
        &EngineSettings { prefix_cache: false, ..EngineSettings::default() },
    );
    for (index, found) in together.iter().enumerate() {
        assert_eq!(found, &answer(&alone, sampled(index as u64)), "answer {index}");
    }
    assert!(together.iter().any(|other| other.ids != together[0].ids), "seeds of their own");
}

#[test]
fn who_waits_for_a_beginning_goes_on_when_it_is_given_up() {
    let settings = EngineSettings { tokens_per_step: 8, ..EngineSettings::default() };
    let engine = alphabet_engine(128, Duration::from_millis(10), &settings);
    let text = format!("{}a", "0123456789".repeat(8));
    let first = engine.submit(request("a", &text)).unwrap();
    let second = engine.submit(request("a", &text)).unwrap();
    let third = engine
        .submit(Request { time_limit: Some(Duration::from_millis(25)), ..request("a", &text) })
        .unwrap();
    std::thread::sleep(Duration::from_millis(40));
    first.cancel();
    assert_eq!(first.wait(), Err(RequestFailure::Cancelled), "while its prompt is read");
    assert_eq!(third.wait(), Err(RequestFailure::TimeLimit), "while it waits for another's");
    assert_eq!(second.wait().unwrap().text, "bcd");
    assert!(engine.load().figures.prefix_tokens_saved > 0, "what the first had read is kept");
}

#[test]
fn a_long_prompt_is_read_beside_running_answers() {
    let settings = EngineSettings { tokens_per_step: 8, ..EngineSettings::default() };
    let engine = alphabet_engine(256, Duration::from_millis(5), &settings);
    let answering = engine.submit(Request { max_tokens: Some(24), ..request("a", "a") }).unwrap();
    assert!(matches!(answering.next_event(), Some(Event::Token { .. })));
    let reading = engine.submit(request("b", &"0123456789".repeat(20))).unwrap();
    let began = Instant::now();
    assert_eq!(answering.wait().unwrap().reason, Some(FinishReason::MaxTokens));
    let answered = began.elapsed();
    // 23 tokens in 23 steps, while 7 rows a step go to the prompt of 200: it is not through by then.
    assert!(reading.next_event_within(Duration::ZERO).is_err());
    reading.wait().unwrap();
    assert!(answered < began.elapsed());
    assert!(engine.load().figures.steps < 40, "{:?}", engine.load().figures);
}

#[test]
fn kept_blocks_give_way_to_running_requests() {
    // 2 x 16 blocks of 4 positions.
    let settings = EngineSettings { running_requests: 2, ..EngineSettings::default() };
    let engine = engine(settings);
    let text = |number: usize| format!("{number:02}{}", "x".repeat(46));
    for round in 0..3 {
        for number in 0..10 {
            let found = answer(&engine, Request { max_tokens: Some(9), ..request("a", &text(number)) });
            assert_eq!(found.text.chars().next(), Some('y'), "round {round}, text {number}");
        }
    }
    assert_eq!(engine.load().figures.prefix_hits, 0, "10 texts of 12 blocks go round in 32");
    assert!(costs(&engine, request("a", &text(9))).prefix_tokens_saved > 40, "the last one is there");
}

#[test]
fn guesses_change_nothing_but_the_number_of_steps() {
    let engine = engine(EngineSettings::default());
    let long = |speculation| Request {
        max_tokens: Some(20),
        speculation: Some(speculation),
        logprobs: Some(2),
        ..request("a", "abcdefghijklmnopqrstuvwxyz abcd")
    };
    let (plain, guessed) = (answer(&engine, long(0)), answer(&engine, long(8)));
    assert_eq!(plain, guessed);
    assert_eq!(plain.text, "efghijklmnopqrstuvwx");
    let (plain, guessed) = (costs(&engine, long(0)), costs(&engine, long(8)));
    assert_eq!((plain.steps, plain.guessed_tokens), (20, 0));
    assert!(guessed.steps <= 6, "{guessed:?}");
    assert_eq!(guessed.guessed_tokens, guessed.accepted_tokens, "the alphabet holds no surprises");
    // Stop strings end the answer inside a guess.
    let stopped = Request { stop: vec!["hij".to_string()], ..long(8) };
    assert_eq!(answer(&engine, stopped).text, "efg");
    assert!(matches!(engine.submit(long(65)).err(), Some(SubmitError::Field { field: "speculation", .. })));
}

/// On the engine's own thread, where nothing can be late: all that led to the last event is counted when it comes.
#[test]
fn who_hears_the_last_event_finds_it_counted() {
    let engine = Arc::new(engine(EngineSettings::default()));
    for speculation in [0, 8] {
        let before = engine.load().figures;
        let (sender, receiver) = mpsc::channel();
        // The thread must not be the last to hold the engine: it would wait for its own end.
        let seen = Arc::downgrade(&engine);
        let asked = Request {
            max_tokens: Some(20),
            speculation: Some(speculation),
            ..request("a", "abcdefghijklmnopqrstuvwxyz abcd")
        };
        let running = engine.submit_with(asked, move |event| {
            if let Event::Finished { .. } = event {
                let load = seen.upgrade().map(|engine| engine.load());
                let _ = sender.send(load);
            }
        });
        let load = receiver.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        drop(running);
        assert_eq!((load.running, load.cache_blocks_used), (0, 0));
        let more = |of: fn(EngineFigures) -> u64| of(load.figures) - of(before);
        let kept = more(|figures| figures.accepted_tokens);
        assert_eq!(
            more(|figures| figures.steps) + kept,
            20,
            "a step gives one token, and those that were guessed"
        );
        assert_eq!(kept > 0, speculation > 0);
    }
}

#[test]
fn a_text_becomes_a_vector() {
    let engine = engine(EngineSettings { tokens_per_step: 5, ..EngineSettings::default() });
    let ids = tokens("Żejtun");
    let vector = |pooling| answer(&engine, Request::embedding("a", ids.clone(), pooling));
    let sums: Vec<f32> = (1..=ids.len()).map(|length| ids[..length].iter().sum::<u32>() as f32).collect();
    let last = vector(Pooling::Last);
    assert_eq!(last.embedding, [sums[ids.len() - 1], ids.len() as f32]);
    assert_eq!((last.usage.prompt_tokens, last.usage.completion_tokens), (ids.len(), 0));
    let mean = vector(Pooling::Mean).embedding;
    assert_eq!(mean, [sums.iter().sum::<f32>() / ids.len() as f32, (ids.len() + 1) as f32 / 2.0]);
    let both = Request { prompt_logprobs: Some(0), ..Request::embedding("a", ids, Pooling::Mean) };
    assert!(matches!(engine.submit(both).err(), Some(SubmitError::Field { field: "pooling", .. })));
}
