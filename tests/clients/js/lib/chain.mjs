// A wallet's way to the chain with @polkadot/api: connecting, and sending extrinsics until they are in a block.
import { ApiPromise, WsProvider } from '@polkadot/api';
import { Keyring } from '@polkadot/keyring';
import { cryptoWaitReady } from '@polkadot/util-crypto';

/** How long anything on chain may take. */
const LIMIT_MS = 120_000;

/** `promise`, or an error after `ms`. */
export function within(promise, what, ms = LIMIT_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms / 1000} s`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/**
 * Connects and waits for the metadata. `api.complaints` collects what the library complains about; `api.ask` makes calls
 * that it has no method for.
 */
export async function connect(url) {
  const complaints = [];
  for (const level of ['warn', 'error']) {
    console[level] = (...words) => complaints.push(words.join(' '));
  }
  await cryptoWaitReady();
  const provider = new WsProvider(url);
  const api = await within(ApiPromise.create({ provider }), `connecting to ${url}`);
  api.complaints = complaints;
  api.ask = (method, ...params) => provider.send(method, params);
  return api;
}

/** The key pair of a development URI such as //Bob. */
export function pair(uri) {
  return new Keyring({ type: 'sr25519', ss58Format: 42 }).addFromUri(uri);
}

/** What went wrong in a dispatch, in the chain's own words. */
function explain(api, error) {
  if (!error.isModule) return error.toString();
  const { section, name, docs } = api.registry.findMetaError(error.asModule);
  return `${section}.${name}: ${docs.join(' ')}`;
}

/**
 * Signs and sends an extrinsic and waits until it is in a block.
 *
 * Gives its events, its block's hash and its dispatch error, if it has one. An interrupted batch counts as an error.
 */
export function outcome(api, extrinsic, signer) {
  const sent = new Promise((resolve, reject) => {
    let stop;
    extrinsic
      .signAndSend(signer, ({ status, events, dispatchError }) => {
        if (status.isInBlock) {
          stop?.();
          const interrupted = events.map(({ event }) => event).find((e) => api.events.utility.BatchInterrupted.is(e));
          const error = dispatchError ?? interrupted?.data.error;
          resolve({
            events: events.map(({ event }) => event),
            block: status.asInBlock.toHex(),
            error: error && explain(api, error),
          });
        } else if (status.isInvalid || status.isDropped || status.isUsurped) {
          stop?.();
          reject(new Error(`the pool says ${status.type}`));
        }
      })
      .then((unsubscribe) => (stop = unsubscribe), reject);
  });
  return within(sent, `including ${extrinsic.method.section}.${extrinsic.method.method}`);
}

/** Like `outcome`, for an extrinsic that must succeed. */
export async function send(api, extrinsic, signer) {
  const result = await outcome(api, extrinsic, signer);
  if (result.error) throw new Error(`${extrinsic.method.section}.${extrinsic.method.method}: ${result.error}`);
  return result;
}

/** The one event of this kind; throws if there is none. `kind` is for example `api.events.balances.Transfer`. */
export function find(events, kind, name) {
  const found = events.find((event) => kind.is(event));
  if (!found) throw new Error(`no event ${name} among ${events.map((e) => `${e.section}.${e.method}`)}`);
  return found.data;
}

/** Free balance of an account, in the best block or in the one named: another may be best a moment later. */
export async function balance(api, address, block) {
  const { query } = block ? await api.at(block) : api;
  return (await query.system.account(address)).data.free.toBigInt();
}

/** Resolves as soon as `test`, asked at every new best block, gives something. */
export function eventually(api, what, test, ms = LIMIT_MS) {
  let stop;
  const found = new Promise((resolve, reject) => {
    let busy = false;
    api.rpc.chain
      .subscribeNewHeads(async () => {
        if (busy) return;
        busy = true;
        try {
          const value = await test();
          if (value !== undefined && value !== false) resolve(value);
        } catch (error) {
          reject(error);
        }
        busy = false;
      })
      .then((unsubscribe) => (stop = unsubscribe), reject);
  });
  return within(found, what, ms).finally(() => stop?.());
}
