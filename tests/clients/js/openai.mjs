// The official OpenAI client for JavaScript against a Pacer network and against an engine alone.
//
// Environment: PACER_API (http://host:port/v1) with PACER_API_KEY, PACER_PROXY_API (of `pacer-agent proxy`),
// PACER_ENGINE_API; at least one of the three addresses.
// PACER_MODEL names the model (pacer-demo).
import OpenAI from 'openai';
import { check, end, ensure, env, failure, need, same } from './lib/check.mjs';

const model = env('PACER_MODEL', 'pacer-demo');
const messages = [{ role: 'user', content: 'What is a Sprint?' }];
const settings = { maxRetries: 0, timeout: 120_000 };

async function tryServer(name, baseURL, apiKey, keyIsChecked) {
  const client = new OpenAI({ baseURL, apiKey, ...settings });
  const ask = (more = {}) =>
    client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 64, ...more });

  await need(`${name}: models.list names the model`, async () => {
    const names = (await client.models.list()).data.map((m) => m.id);
    ensure(names.includes(model), `${model} is not among ${names}`);
    return { names };
  });

  let answer = '';
  let tokens = 0;
  await need(`${name}: chat answers`, async () => {
    const response = await ask();
    const choice = response.choices[0];
    answer = choice.message.content;
    ensure(answer.trim().length > 0, 'the answer is empty');
    same(choice.message.role, 'assistant', 'the role');
    same(choice.finish_reason, 'stop', 'the finish reason');
    same(response.object, 'chat.completion', 'the object');
    const { prompt_tokens, completion_tokens, total_tokens } = response.usage;
    ensure(prompt_tokens > 0 && completion_tokens > 0, 'the usage is empty');
    same(total_tokens, prompt_tokens + completion_tokens, 'total_tokens');
    tokens = completion_tokens;
    return { answer, prompt_tokens, completion_tokens };
  });

  await check(`${name}: a streamed chat gives the same answer in pieces`, async () => {
    const start = Date.now();
    const stream = await ask({ stream: true, stream_options: { include_usage: true } });
    let [text, pieces, usage, reason, firstMs] = ['', 0, null, null, null];
    for await (const chunk of stream) {
      same(chunk.object, 'chat.completion.chunk', 'the object');
      const piece = chunk.choices[0]?.delta?.content;
      if (piece) {
        firstMs ??= Date.now() - start;
        text += piece;
        pieces += 1;
      }
      reason = chunk.choices[0]?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    same(text, answer, 'the text');
    same(reason, 'stop', 'the finish reason');
    ensure(pieces > 1, 'it came in one piece');
    ensure(usage, 'the usage is missing');
    same(usage.completion_tokens, tokens, 'completion_tokens');
    return { pieces, first_ms: firstMs };
  });

  await check(`${name}: logprobs come with every token`, async () => {
    const response = await ask({ logprobs: true, top_logprobs: 3 });
    const list = response.choices[0].logprobs.content;
    same(list.map((t) => t.token).join(''), response.choices[0].message.content, 'the tokens joined');
    for (const token of list) {
      ensure(token.logprob <= 0, `a log-probability of ${token.logprob}`);
      same(token.top_logprobs.length, 3, 'the number of alternatives');
      const values = token.top_logprobs.map((t) => t.logprob);
      ensure(values[0] >= values[1] && values[1] >= values[2], 'alternatives are not in order');
      same(token.logprob, values[0], 'the most likely token, which temperature 0 takes,');
    }
    return { tokens: list.length };
  });

  await check(`${name}: a seed makes a hot answer repeatable`, async () => {
    const hot = async (seed, temperature) =>
      (await ask({ seed, temperature, max_tokens: 24 })).choices[0].message.content;
    const text = await hot(7, 0.8);
    same(await hot(7, 0.8), text, 'the second answer with the same seed');
    const others = new Set();
    for (const seed of [1, 2, 3, 4]) others.add(await hot(seed, 2));
    ensure(others.size > 1, 'four seeds at temperature 2 gave one answer');
    return { text, answers_of_four_seeds: others.size };
  });

  await check(`${name}: a stop string ends the answer before it`, async () => {
    const words = answer.trim().split(/\s+/);
    const stop = words[Math.min(4, words.length - 1)];
    const choice = (await ask({ stop: [stop] })).choices[0];
    same(choice.message.content, answer.slice(0, answer.indexOf(stop)), 'the text');
    same(choice.finish_reason, 'stop', 'the finish reason');
    return { stop };
  });

  await check(`${name}: max_tokens ends the answer`, async () => {
    const response = await ask({ max_tokens: 3 });
    same(response.choices[0].finish_reason, 'length', 'the finish reason');
    same(response.usage.completion_tokens, 3, 'completion_tokens');
    ensure(answer.startsWith(response.choices[0].message.content), 'it is not the beginning of the answer');
  });

  await check(`${name}: completions go on with a text`, async () => {
    const response = await client.completions.create({ model, prompt: 'A Host is', temperature: 0, max_tokens: 8 });
    same(response.object, 'text_completion', 'the object');
    ensure(response.choices[0].text.length > 0, 'the text is empty');
    return { text: response.choices[0].text };
  });

  await check(`${name}: requests at the same time are all answered`, async () => {
    const answers = await Promise.all([1, 2, 3, 4].map(() => ask({ max_tokens: 16 })));
    for (const one of answers) ensure(answer.startsWith(one.choices[0].message.content), 'an answer differs');
  });

  await check(`${name}: an unknown model is a 404`, async () => {
    const error = await failure(ask({ model: 'no-such-model' }), 'an unknown model');
    ensure(error instanceof OpenAI.NotFoundError, `it is ${error}`);
    same(error.code, 'model_not_found', 'the code');
    return { message: error.message };
  });

  await check(`${name}: nonsense is a 400`, async () => {
    const error = await failure(ask({ max_tokens: 0 }), 'a request for no tokens');
    ensure(error instanceof OpenAI.BadRequestError, `it is ${error}`);
    same(error.type, 'invalid_request_error', 'the type');
    return { message: error.message };
  });

  if (keyIsChecked) {
    await check(`${name}: a wrong API key is a 401`, async () => {
      const stranger = new OpenAI({ baseURL, apiKey: 'sk-not-a-key', ...settings });
      const request = stranger.chat.completions.create({ model, messages, max_tokens: 8 });
      const error = await failure(request, 'a wrong key');
      ensure(error instanceof OpenAI.AuthenticationError, `it is ${error}`);
      same(error.code, 'invalid_api_key', 'the code');
      return { message: error.message };
    });
  }
}

const [network, proxy, engine] = ['PACER_API', 'PACER_PROXY_API', 'PACER_ENGINE_API'].map((name) => process.env[name]);
if (!network && !proxy && !engine) env('PACER_API');
// The client insists on a key; a proxy, which signs, and an engine without one do not look at it.
if (engine) await tryServer('engine', engine, 'none', false);
if (proxy) await tryServer('proxy', proxy, 'none', false);
if (network) await tryServer('network', network, env('PACER_API_KEY'), true);
await end();
