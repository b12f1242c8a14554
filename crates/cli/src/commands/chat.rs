//! `eulalia chat`: a conversation in the terminal, the answer as it is generated, then its speed.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokenizer::{Conversation as Told, Message, Moment};

use crate::arguments::ChatArguments;
use crate::commands::answering::{self, Answered, Answering, Growing};
use crate::errors::{Usage, to_output};
use crate::run::World;

const COMMANDS: &str = "\
/new            forget the conversation
/system TEXT    say who the model is to be, and begin anew; without TEXT, say nothing
/again          another answer to the last message
/undo           take back the last message and its answer
/help           these commands
/quit           end (as does an empty line or Ctrl-D)
Ctrl-C stops an answer; a second one ends. A message that begins with / is written with //.";

/// The answer goes to standard output; with `json` that belongs to the result, and the answer to standard error.
pub fn chat(arguments: &ChatArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    let answering = Answering::start(
        &arguments.model,
        arguments.adapter.as_deref(),
        arguments.allow_unverified,
        &arguments.answer,
        world,
    )?;
    let people = std::io::stdin().is_terminal();
    if people {
        world
            .console
            .say("You talk to a machine. /help says what else can be typed; an empty line or Ctrl-D ends.");
    }
    let mut conversation = Conversation::new(arguments.system.clone());
    let lines = read_lines();
    let mut turns = Vec::new();
    while let Some(line) = next_line(&lines, people, world)? {
        match conversation.take(&line) {
            Said::Message => {
                let answered = match answer(&answering, &mut conversation, json, people, world) {
                    // A message that the engine does not take, being too long for it, ends no conversation.
                    Err(error) if people && error.is::<Usage>() => {
                        world.console.say(&format!("{error}. The message is taken back."));
                        conversation.take("/undo");
                        continue;
                    }
                    answered => answered?,
                };
                let last = conversation.last_message();
                turns
                    .push(json!({ "user": last, "assistant": answered.text, "figures": answered.to_json() }));
            }
            Said::Nothing(reply) => world.console.say(&reply),
            Said::End => break,
        }
    }
    Ok(json!({ "turns": turns }))
}

/// What was said so far.
struct Conversation {
    messages: Vec<Message>,
    /// How often the last message was answered again.
    again: u64,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
enum Said {
    /// An answer to the last message.
    Message,
    /// No answer; a reply of the program.
    Nothing(String),
    End,
}

impl Conversation {
    fn new(system: Option<String>) -> Conversation {
        Conversation {
            messages: system.map(|text| Message::new("system", text)).into_iter().collect(),
            again: 0,
        }
    }

    /// Takes a line: a message, or a command.
    fn take(&mut self, line: &str) -> Said {
        let nothing = |reply: &str| Said::Nothing(reply.to_string());
        let Some(command) = line.strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
            let text = line.strip_prefix('/').unwrap_or(line);
            self.messages.push(Message::new("user", text));
            self.again = 0;
            return Said::Message;
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match name {
            "help" => nothing(COMMANDS),
            "quit" | "exit" => Said::End,
            "new" => {
                let system = self.messages.iter().find(|message| message.role == "system");
                *self = Conversation::new(system.map(|message| message.content.clone()));
                nothing("The conversation is forgotten.")
            }
            "system" => {
                let text = rest.trim();
                *self = Conversation::new((!text.is_empty()).then(|| text.to_string()));
                nothing("A new conversation begins.")
            }
            "again" | "undo" => {
                let Some(last) = self.messages.iter().rposition(|message| message.role == "user") else {
                    return nothing("Nothing was said yet.");
                };
                if name == "again" {
                    self.messages.truncate(last + 1);
                    self.again += 1;
                    return Said::Message;
                }
                self.messages.truncate(last);
                self.again = 0;
                nothing("The last message and its answer are taken back.")
            }
            other => Said::Nothing(format!("There is no command /{other}.\n{COMMANDS}")),
        }
    }

    fn last_message(&self) -> &str {
        let last = self.messages.iter().rfind(|message| message.role == "user");
        last.map_or("", |message| message.content.as_str())
    }

    /// Forgets the oldest turn, never the system's words or the last message. `false`: there is nothing to forget.
    fn forget_oldest(&mut self) -> bool {
        let oldest = usize::from(self.messages.first().is_some_and(|message| message.role == "system"));
        if oldest + 1 >= self.messages.len() {
            return false;
        }
        // An answer without its question would puzzle the template and the model.
        let next = self.messages[oldest + 1..].iter().position(|message| message.role == "user");
        self.messages.drain(oldest..oldest + 1 + next.unwrap_or(0));
        true
    }
}

/// Standard input on a thread of its own, so that Ctrl-C is heard while it waits.
fn read_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn next_line(
    lines: &mpsc::Receiver<std::io::Result<String>>,
    people: bool,
    world: &World,
) -> anyhow::Result<Option<String>> {
    if people {
        eprint!("> ");
    }
    loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => {
                let line = line.context("standard input is no text")?.trim().to_string();
                return Ok((!line.is_empty()).then_some(line));
            }
            Err(mpsc::RecvTimeoutError::Timeout) if world.cancellation.is_cancelled() => {
                return Err(answering::interrupted());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// One answer, printed as it comes. When the context is full, the oldest turns are forgotten.
fn answer(
    answering: &Answering,
    conversation: &mut Conversation,
    json: bool,
    people: bool,
    world: &World,
) -> anyhow::Result<Answered> {
    let engine = &answering.engine;
    let tokenizer = engine.tokenizer();
    for message in &conversation.messages {
        engine.admit_text(&message.content).map_err(|error| Usage(error.to_string()))?;
    }
    let since_1970 = world.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Some(Moment::from_unix(since_1970.as_secs() as i64));
    let encode =
        |messages: &[Message]| tokenizer.encode_conversation(&Told { now, ..Told::of(messages, true) });
    let mut prompt = encode(&conversation.messages)?;
    let room = engine.context_length() - answering.max_tokens().min(engine.context_length() / 2);
    let mut forgotten = false;
    while prompt.len() > room && conversation.forget_oldest() {
        forgotten = true;
        prompt = encode(&conversation.messages)?;
    }
    if forgotten {
        world.console.say("[the context is full: the oldest turns are forgotten]");
    }
    let prompt_tokens = prompt.len();
    let handle = answering.ask(prompt, conversation.again, engine.turn_end_tokens(), None)?;
    let mut out = answering::answer_stream(json);
    let terminal = answering::shown_to_people(json);
    let answered =
        answering::show(&mut [Growing::new(&handle, prompt_tokens)], 0, &mut *out, terminal, world)?;
    to_output(writeln!(out))?;
    world.console.say(&answered.summary());
    if answered.reason.is_none() {
        if !people {
            return Err(answering::interrupted());
        }
        answering::forget_interruption(world);
    }
    conversation.messages.push(Message::new("assistant", answered.text.clone()));
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(conversation: &Conversation) -> Vec<(&str, &str)> {
        conversation
            .messages
            .iter()
            .map(|message| (message.role.as_str(), message.content.as_str()))
            .collect()
    }

    #[test]
    fn lines_are_messages_or_commands() {
        let mut conversation = Conversation::new(Some("Kurz.".to_string()));
        assert_eq!(conversation.take("Dia duit"), Said::Message);
        conversation.messages.push(Message::new("assistant", "Haigh"));
        assert_eq!(conversation.take("//usr"), Said::Message);
        assert_eq!(
            roles(&conversation),
            [("system", "Kurz."), ("user", "Dia duit"), ("assistant", "Haigh"), ("user", "/usr")]
        );
        assert_eq!(conversation.take("/again"), Said::Message);
        assert_eq!((conversation.again, conversation.messages.len()), (1, 4));
        assert!(matches!(conversation.take("/undo"), Said::Nothing(_)));
        assert_eq!(conversation.last_message(), "Dia duit");
        assert!(
            matches!(conversation.take("/nonsense"), Said::Nothing(reply) if reply.contains("/nonsense"))
        );
        conversation.take("/new");
        assert_eq!(roles(&conversation), [("system", "Kurz.")]);
        assert!(matches!(conversation.take("/again"), Said::Nothing(_)));
        conversation.take("/system");
        assert_eq!(roles(&conversation), []);
        assert_eq!(conversation.take("/quit"), Said::End);
    }

    #[test]
    fn the_oldest_turn_goes_as_a_whole() {
        let mut conversation = Conversation::new(Some("s".to_string()));
        for (role, text) in [("user", "1"), ("assistant", "2"), ("user", "3")] {
            conversation.messages.push(Message::new(role, text));
        }
        assert!(conversation.forget_oldest());
        assert_eq!(roles(&conversation), [("system", "s"), ("user", "3")]);
        assert!(!conversation.forget_oldest(), "the last message stays");
    }
}
