// Runs named checks, one JSON line each, and ends the process with their result.
//
// A check that fails does not keep later ones from running: one run shows everything that is wrong. A check that others
// build on throws out of the whole script by `need`.

let failed = 0;

/** Prints a line of JSON; amounts are BigInts and become text. */
export function line(object) {
  console.log(JSON.stringify(object, (_, value) => (typeof value === 'bigint' ? value.toString() : value)));
}

/** Runs a check. What it returns is printed beside its name. */
export async function check(name, body) {
  const start = Date.now();
  try {
    const detail = await body();
    line({ check: name, ok: true, ms: Date.now() - start, ...(detail ?? {}) });
    return detail ?? {};
  } catch (error) {
    failed += 1;
    line({ check: name, ok: false, ms: Date.now() - start, error: String(error?.message ?? error) });
    return undefined;
  }
}

/** A check without which the rest makes no sense. */
export async function need(name, body) {
  const detail = await check(name, body);
  if (detail === undefined) await end();
  return detail;
}

/** Throws unless `condition` holds. */
export function ensure(condition, message) {
  if (!condition) throw new Error(message);
}

/** Throws unless two values are the same. */
export function same(actual, expected, what) {
  const [a, b] = [actual, expected].map((value) =>
    JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)),
  );
  if (a !== b) throw new Error(`${what} is ${a}, not ${b}`);
}

/** The error that `promise` ends with; throws if it does not fail. */
export async function failure(promise, what) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`${what} should have failed, but gave ${JSON.stringify(value)}`);
}

/** A variable of the environment. Without `fallback` it must be set. */
export function env(name, fallback) {
  const value = process.env[name] || fallback;
  if (value === undefined) {
    console.error(`${name} is not set; see tests/clients/README.md`);
    process.exit(2);
  }
  return value;
}

/** Ends the process: 0 if every check held. `close` shuts down what would keep it alive. */
export async function end(close) {
  line({ done: true, failed });
  await close?.().catch(() => {});
  process.exit(failed === 0 ? 0 : 1);
}
