// Holds a running server against OpenAI's own client for Node: what that client expects, the server must do.
//
//     npm install --prefix /somewhere openai@7.57.0
//     cp tools/clients/openai_node.mjs /somewhere && node /somewhere/openai_node.mjs http://127.0.0.1:8480 eu-…
//
// (A module is looked for beside the script, hence the copy.) Prints one line per check; exit code 1 if one fails.

import OpenAI from "openai";

const [base, key] = process.argv.slice(2);
if (!base || !key) {
  console.error("usage: node openai_node.mjs URL KEY");
  process.exit(2);
}
const baseURL = base.replace(/\/+$/, "").replace(/\/v1$/, "") + "/v1";
const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });
let failures = 0;

function check(what, holds, shown = "") {
  console.log(`${holds ? "ok  " : "FAIL"} ${what} ${holds ? "" : JSON.stringify(shown)}`.trimEnd());
  if (!holds) failures += 1;
}

async function refused(what, kind, call, field = null) {
  try {
    check(what, false, await call());
  } catch (error) {
    check(what, error instanceof kind && (error.param ?? null) === field, String(error));
  }
}

async function completes(model) {
  const ask = (more) => client.completions.create({ model, prompt: "Dobrý deň", max_tokens: 12, temperature: 0, ...more });
  const whole = await ask({});
  const { usage } = whole;
  check(`${model}: completes`, usage.total_tokens === usage.prompt_tokens + usage.completion_tokens, whole);
  let text = "";
  let last = null;
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices.map((choice) => choice.text).join("");
    last = chunk;
  }
  check(`${model}: streams the same text`, text === whole.choices[0].text, text);
  check(`${model}: streams its usage`, last.usage?.completion_tokens === usage.completion_tokens, last);
  const scored = await ask({ echo: true, logprobs: 2, max_tokens: 1 });
  const { token_logprobs, text_offset } = scored.choices[0].logprobs;
  check(`${model}: echoes with probabilities`, token_logprobs[0] === null && text_offset[0] === 0, scored);
  const stream = await client.completions.create({ model, prompt: "a", max_tokens: 400, stream: true });
  for await (const _ of stream) break;
  check(`${model}: a stream that is left ends`, stream.controller.signal.aborted);
}

async function chats(model) {
  const messages = [{ role: "system", content: "Kurz." }, { role: "user", content: "Wat eet een egel?" }];
  const ask = (more) => client.chat.completions.create({ model, messages, max_completion_tokens: 16, temperature: 0, ...more });
  let answer;
  try {
    answer = await ask({});
  } catch (error) {
    check(`${model}: has no chat template and says so`, error.code === "no_chat_template", String(error));
    return;
  }
  check(`${model}: chats`, answer.choices[0].message.role === "assistant", answer);
  const runner = client.chat.completions.stream({ model, messages, max_completion_tokens: 16, temperature: 0 });
  const final = await runner.finalChatCompletion();
  check(`${model}: the stream helper gathers the same answer`, final.choices[0].message.content === answer.choices[0].message.content, final);
  const schema = { type: "object", properties: { n: { type: "integer", minimum: 0, maximum: 9 } }, required: ["n"], additionalProperties: false };
  const formed = await ask({ response_format: { type: "json_schema", json_schema: { name: "number", schema, strict: true } }, max_completion_tokens: 24 });
  check(`${model}: answers in the form asked for`, Number.isInteger(JSON.parse(formed.choices[0].message.content).n), formed);
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
check("lists models", models.length > 0, models);
for (const model of models) {
  check(`${model}: is shown`, (await client.models.retrieve(model)).id === model);
  await completes(model);
  await chats(model);
  const vectors = await client.embeddings.create({ model, input: ["Tere", "Labas"] });
  const length = Math.hypot(...vectors.data[1].embedding);
  check(`${model}: embeds (the client decodes base64)`, vectors.data.length === 2 && Math.abs(length - 1) < 1e-3, length);
}
const [model] = models;
const wrong = new OpenAI({ baseURL, apiKey: "eu-wrong", maxRetries: 0 });
await refused("a wrong key is 401", OpenAI.AuthenticationError, () => wrong.models.list());
await refused("an unknown model is 404", OpenAI.NotFoundError, () => client.completions.create({ model: "none", prompt: "a" }), "model");
await refused("a field that is not known is 400 and named", OpenAI.BadRequestError, () => client.completions.create({ model, prompt: "a", nonsense: 1 }), "nonsense");
process.exit(failures ? 1 : 0);
