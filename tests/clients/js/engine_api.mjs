// The whole API of an engine through the official OpenAI client for JavaScript and its helpers.
//
// Environment: PACER_ENGINE_API (http://host:port/v1), PACER_API_KEY, PACER_MODEL (pacer-demo), PACER_CHECKS (names,
// separated by commas; all if left out). The engine must know how to read tool calls (--tool-call-parser).
import OpenAI from 'openai';
import { check, end, ensure, env, failure, same } from './lib/check.mjs';

const model = env('PACER_MODEL', 'pacer-demo');
const client = new OpenAI({ baseURL: env('PACER_ENGINE_API'), apiKey: env('PACER_API_KEY', 'none'), maxRetries: 0, timeout: 120_000 });
const messages = [{ role: 'user', content: 'What is a Sprint?' }];
const ask = (more = {}) => client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 48, ...more });
const parameters = {
  type: 'object',
  properties: { city: { enum: ['Paris', 'Rome'] }, days: { type: 'integer', minimum: 1, maximum: 9 } },
  required: ['city', 'days'],
  additionalProperties: false,
};
const weather = { name: 'get_weather', description: 'The weather of a city', parameters };

const checks = {
  async models() {
    same((await client.models.retrieve(model)).id, model, 'the model');
  },

  async chat() {
    const whole = await ask({ logprobs: true, top_logprobs: 2 });
    const text = whole.choices[0].message.content;
    const runner = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 48 });
    same(await runner.finalContent(), text, 'the streamed text');
    same((await runner.finalChatCompletion()).choices[0].finish_reason, whole.choices[0].finish_reason, 'the reason');
    const tokens = whole.choices[0].logprobs.content;
    same(Buffer.concat(tokens.map((t) => Buffer.from(t.bytes))).toString(), text, 'the bytes joined');
    return { text };
  },

  async completions() {
    const whole = await client.completions.create({ model, prompt: 'A Host is', max_tokens: 4, echo: true, logprobs: 1 });
    const { tokens, token_logprobs: values } = whole.choices[0].logprobs;
    same(tokens.filter((token) => !token.startsWith('<|')).join(''), whole.choices[0].text, 'the tokens joined');
    ensure(values[0] === null && values.slice(1).every((value) => value <= 0), 'a value is wrong');
  },

  async responses() {
    const wish = { model, input: 'What is a Sprint?', temperature: 0, max_output_tokens: 48 };
    const whole = await client.responses.create(wish);
    same(whole.output_text, (await ask()).choices[0].message.content, 'the text');
    const stream = client.responses.stream(wish);
    let text = '';
    stream.on('response.output_text.delta', (event) => (text += event.delta));
    const last = await stream.finalResponse();
    same([text, last.output_text, last.status], [whole.output_text, whole.output_text, whole.status], 'the streamed one');
    const error = await failure(client.responses.create({ ...wish, previous_response_id: 'resp_1' }), 'a memory');
    ensure(error instanceof OpenAI.BadRequestError && error.param === 'previous_response_id', `it is ${error}`);
  },

  async formats() {
    const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'], additionalProperties: false };
    const format = { type: 'json_schema', json_schema: { name: 'x', strict: true, schema } };
    const parsed = await client.chat.completions.parse({ model, messages, max_tokens: 400, response_format: format });
    ensure(typeof parsed.choices[0].message.parsed.ok === 'boolean', 'it was not parsed');
    const response = await client.responses.parse({
      model, input: 'Yes?', max_output_tokens: 400, text: { format: { type: 'json_schema', name: 'x', strict: true, schema } },
    });
    ensure(typeof response.output_parsed.ok === 'boolean', 'it was not parsed');
    const chosen = await ask({ guided_choice: ['left', 'right'] });
    ensure(['left', 'right'].includes(chosen.choices[0].message.content), 'it is none of the choices');
  },

  async tools() {
    const tools = [{ type: 'function', function: weather }];
    const wish = { model, messages, tools, tool_choice: 'required', parallel_tool_calls: false, max_tokens: 500, temperature: 0 };
    const answer = (await client.chat.completions.create(wish)).choices[0];
    same(answer.finish_reason, 'tool_calls', 'the finish reason');
    const call = answer.message.tool_calls[0];
    const { city, days } = JSON.parse(call.function.arguments);
    ensure(['Paris', 'Rome'].includes(city) && days >= 1 && days <= 9, call.function.arguments);
    const streamed = await client.chat.completions.stream(wish).finalChatCompletion();
    same(streamed.choices[0].message.tool_calls[0].function, call.function, 'the streamed call');
    const response = await client.responses.create({
      model, input: 'Weather?', tools: [{ type: 'function', strict: true, ...weather }], tool_choice: 'required',
      parallel_tool_calls: false, max_output_tokens: 500,
    });
    same(response.output.map((item) => item.type), ['function_call'], 'the items');
    return { arguments: call.function.arguments };
  },

  async errors() {
    const unknown = await failure(ask({ model: 'none' }), 'an unknown model');
    ensure(unknown instanceof OpenAI.NotFoundError && unknown.requestID, `it is ${unknown}`);
    const stranger = new OpenAI({ baseURL: client.baseURL, apiKey: 'wrong', maxRetries: 0 });
    const refused = await failure(stranger.models.list(), 'a wrong key');
    ensure(refused instanceof OpenAI.AuthenticationError, `it is ${refused}`);
    const broken = await failure(ask({ tools: [{ type: 'x' }] }), 'an unknown kind of tool');
    same([broken.status, broken.param], [400, 'tools.0'], 'the refusal');
  },
};

for (const name of env('PACER_CHECKS', Object.keys(checks).join(',')).split(',')) {
  if (checks[name]) await check(name, checks[name]);
}
await end();
