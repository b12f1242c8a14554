"use strict";
const texts = JSON.parse(document.getElementById("texts").textContent);
const language = navigator.languages.map((name) => name.slice(0, 2).toLowerCase()).find((name) => texts[name]) || "en";
const say = texts[language];
const at = (id) => document.getElementById(id);
document.documentElement.lang = language;
for (const element of document.querySelectorAll("[data-text]")) element.textContent = say[element.dataset.text];

const signedIn = document.body.dataset.signedIn === "true";
at("sign-in").hidden = signedIn;
for (const id of ["log", "ask", "again", "leave", "choose"]) at(id).hidden = !signedIn;

let conversation = [];
let running = null;

// The key travels once; afterwards a cookie that no script can read stands for it.
at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = at("key").value.trim();
  at("key").value = "";
  try {
    const answer = await fetch("/session", { method: "POST", headers: { Authorization: "Bearer " + key } });
    if (answer.ok) location.reload();
    else complain(answer.status === 401 ? say.wrong_key : await reason(answer));
  } catch (error) {
    complain(String(error));
  }
});

at("leave").addEventListener("click", async () => {
  await fetch("/session", { method: "DELETE" });
  location.reload();
});

at("again").addEventListener("click", () => {
  if (running) running.abort();
  conversation = [];
  at("log").replaceChildren();
  at("text").focus();
});

at("stop").addEventListener("click", () => running && running.abort());

at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text || running) return;
  at("text").value = "";
  conversation.push({ role: "user", content: text });
  turn("user", say.you).textContent = text;
  const target = turn("assistant", say.machine);
  const asked = conversation;
  running = new AbortController();
  busy(true);
  let answer = "";
  try {
    await stream(asked, running.signal, (piece) => {
      answer += piece;
      target.textContent = answer;
      at("end").scrollIntoView({ block: "end" });
    });
  } catch (error) {
    const stopped = error.name === "AbortError";
    const note = document.createElement("small");
    note.className = stopped ? "" : "problem";
    note.textContent = stopped ? " (" + say.stopped + ")" : String(error.message || error);
    target.after(note);
  }
  // What was said stays said, so that the next question can refer to it.
  if (answer) asked.push({ role: "assistant", content: answer });
  else asked.pop();
  running = null;
  busy(false);
  at("text").focus();
});

// Reads server-sent events as they come; lines may be cut anywhere, characters too.
async function stream(messages, signal, take) {
  const answer = await fetch("/v1/chat/completions", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: at("model").value, messages, stream: true }),
  });
  if (!answer.ok) throw new Error(await reason(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice && choice.delta.content) take(choice.delta.content);
    }
  }
}

async function reason(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return answer.status + " " + answer.statusText;
  }
}

// Text is only ever put in as text: nothing that a model writes can become part of the page.
function turn(role, name) {
  const frame = document.createElement("div");
  frame.className = "turn " + role;
  const who = document.createElement("b");
  who.textContent = name;
  const text = document.createElement("p");
  text.dir = "auto";
  frame.append(who, text);
  at("log").append(frame);
  at("end").scrollIntoView({ block: "end" });
  return text;
}

function busy(is) {
  at("send").disabled = is;
  at("stop").hidden = !is;
  at("log").setAttribute("aria-busy", String(is));
}

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = false;
}

async function models() {
  const answer = await fetch("/v1/models");
  if (!answer.ok) return complain(await reason(answer));
  for (const model of (await answer.json()).data) {
    const option = document.createElement("option");
    option.value = option.textContent = model.id;
    at("model").append(option);
  }
  at("text").focus();
}

if (signedIn) models();
else at("key").focus();
