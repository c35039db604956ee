// What a duty key signs, made by hand in JavaScript and handed to `author_submitExtrinsic`: refused with the right reason,
// or included once and never again.
//
// Environment: PACER_WS (a node), PACER_HOST_URI (wallet of a Host with weight; //Alice), PACER_DUTY_URI (its duty key;
// PACER_HOST_URI//duty), PACER_IDLE_HOST_URI (wallet of a Host without weight, its duty key at //duty; optional).
import { u8aToHex } from '@polkadot/util';
import { connect, eventually, pair } from './lib/chain.mjs';
import { check, end, ensure, env, need, same } from './lib/check.mjs';
import {
  KINDS,
  bare,
  call,
  general,
  header,
  list,
  refusal,
  signingHash,
  startRecord,
  u32,
  validity,
} from './lib/duty.mjs';

// Codes of `pacer_types::duty::Rejection`.
const [UNKNOWN_HOST, WRONG_PHASE, WRONG_EPOCH, VALID_TOO_LONG, NO_QUOTA, MALFORMED] = [1, 2, 3, 4, 5, 6].map(
  (n) => `Custom ${n}`,
);
const MAX_VALIDITY_SLOTS = 64;

const hostUri = env('PACER_HOST_URI', '//Alice');
const dutyUri = env('PACER_DUTY_URI', `${hostUri}//duty`);
let api;
let genesis;
await need('the library connects', async () => {
  api = await connect(env('PACER_WS'));
  genesis = api.genesisHash.toU8a();
});
const host = pair(hostUri);
const duty = pair(dutyUri);
const stranger = pair('//Nobody//duty');

async function moment() {
  const { now } = await api.call.pacerApi.clock();
  return { epoch: now.epoch.toNumber(), slot: now.slot.toNumber(), phase: now.phase.toString() };
}

async function laneNonce(who = host, lane = 'Ledger') {
  return (await api.call.pacerApi.laneNonce(who.address, lane)).toNumber();
}

/**
 * A transaction by `duty` for `host` about now; `change` says what is different. Its nonce is one ahead, which the pool
 * accepts, so that a record of the Host's own agent in the same moment changes nothing.
 */
async function transaction(kind, body, change = {}) {
  const now = await moment();
  const head = header({
    host: (change.host ?? host).publicKey,
    epoch: now.epoch + (change.epochs ?? 0),
    nonce:
      kind === KINDS.voteCount
        ? 0
        : (await laneNonce(change.host ?? host, kind === KINDS.commit ? 'Consensus' : 'Ledger')) + (change.nonces ?? 1),
    validUntil: now.slot + (change.slots ?? 24),
  });
  const signature = (change.key ?? duty).sign(
    signingHash(change.genesis ?? genesis, head, change.signedAs ?? kind, change.signedBody ?? body),
  );
  return (change.frame ?? ((encoded) => general(api, encoded)))(call(api, kind, head, body, signature));
}

// A payer that cannot exist: the pool takes the batch, the ledger rejects the record and says so.
const record = (sequence) => startRecord({ payer: 0xffffffff, sequence, model: 0, maxCostMicro: 1, attempt: 0 });
const batch = (sequence = 0) => list([record(sequence)]);

const refused = (name, reason, make) =>
  check(`refused: ${name}`, async () => {
    const said = await refusal(api, await make());
    same(said, reason, 'the reason');
    return { reason };
  });

await refused('a signature by a key that no Host has', 'BadProof', () =>
  transaction(KINDS.startMany, batch(), { key: stranger }),
);
await refused('the duty key of another Host', 'BadProof', () =>
  transaction(KINDS.startMany, batch(), { key: pair('//Bob//duty') }),
);
await refused('a wallet key in place of the duty key', 'BadProof', () =>
  transaction(KINDS.startMany, batch(), { key: host }),
);
await refused('a signature over another body', 'BadProof', () =>
  transaction(KINDS.startMany, batch(1), { signedBody: batch(2) }),
);
await refused('a signature for another kind of call', 'BadProof', () =>
  transaction(KINDS.startMany, batch(), { signedAs: { number: 4 } }),
);
await refused('a signature for another chain', 'BadProof', () =>
  transaction(KINDS.startMany, batch(), { genesis: new Uint8Array(32) }),
);
await refused('an account that is no Host', UNKNOWN_HOST, () =>
  transaction(KINDS.startMany, batch(), { host: stranger, key: stranger }),
);
await refused('an epoch that has not come', WRONG_EPOCH, () => transaction(KINDS.startMany, batch(), { epochs: 1 }));
await refused('a transaction that is valid for too long', VALID_TOO_LONG, () =>
  transaction(KINDS.startMany, batch(), { slots: MAX_VALIDITY_SLOTS + 40 }),
);
await refused('a transaction that was no longer valid', 'Stale', () =>
  // The pool may look from a block some slots older than the best one.
  transaction(KINDS.startMany, batch(), { slots: -12 }),
);
await refused('a nonce too far ahead', 'Future', () => transaction(KINDS.startMany, batch(), { nonces: 40 }));
await refused('an empty batch', MALFORMED, () => transaction(KINDS.startMany, list([])));
await check('refused: a call in the wrong phase', async () => {
  // A commit belongs into Race and a vote on a count into Audit, so one of the two is always wrong. The phase is judged
  // before the signature, which is right here.
  const phase = await eventually(api, 'a phase that lasts a moment', async () => {
    const { now } = await api.call.pacerApi.clock();
    return now.phaseEnd.toNumber() - now.slot.toNumber() > 4 && now.phase.toString();
  });
  const commit = () => transaction(KINDS.commit, Uint8Array.from([...u32(1), ...new Uint8Array(32)]));
  const vote = () => transaction(KINDS.voteCount, Uint8Array.from([...pair('//Bob').publicKey, 1]));
  const said = await refusal(api, await (phase === 'Race' || phase === 'Open' ? vote() : commit()));
  same(said, WRONG_PHASE, 'the reason');
  return { phase, reason: said };
});
await check('refused: a duty call without extension', async () => {
  const said = await refusal(api, await transaction(KINDS.startMany, batch(), { frame: bare }));
  ensure(said !== undefined, 'it was taken');
  return { reason: said };
});
if (process.env.PACER_IDLE_HOST_URI) {
  const idle = pair(process.env.PACER_IDLE_HOST_URI);
  const idleDuty = pair(`${process.env.PACER_IDLE_HOST_URI}//duty`);
  await refused('records by a Host without weight', NO_QUOTA, () =>
    transaction(KINDS.startMany, batch(), { host: idle, key: idleDuty }),
  );
}

/**
 * Follows a transaction that was sent when block `from` was final, until it is final itself; null if another one took
 * its nonce. Only final blocks count: the best one may be replaced, and then nothing is stale yet.
 */
async function included(hex, nonce, from) {
  let next = from + 1;
  return eventually(api, 'including the batch', async () => {
    const final = (await api.rpc.chain.getHeader(await api.rpc.chain.getFinalizedHead())).number.toNumber();
    for (; next <= final; next += 1) {
      const hash = await api.rpc.chain.getBlockHash(next);
      const at = await api.at(hash);
      const after = (await at.call.pacerApi.laneNonce(host.address, 'Ledger')).toNumber();
      // Raw: what is in the block, not what a library makes of it.
      const { block } = await api.ask('chain_getBlock', hash.toHex());
      const index = block.extrinsics.indexOf(hex);
      if (index >= 0) {
        const records = await at.query.system.events();
        const own = records.filter(({ phase }) => phase.isApplyExtrinsic && phase.asApplyExtrinsic.eq(index));
        return { block: next, after, events: own.map(({ event }) => event) };
      }
      if (after > nonce) return null;
    }
    return undefined;
  });
}

/** Sends a batch until one is final. On a busy network the Host's own agent may use a nonce first; then it is the next. */
async function sendBatch() {
  for (let attempt = 1; attempt <= 5; attempt += 1) {
    const from = (await api.rpc.chain.getHeader(await api.rpc.chain.getFinalizedHead())).number.toNumber();
    const nonce = await laneNonce();
    const hex = await transaction(KINDS.startMany, batch(), { nonces: 0 });
    const objection = await refusal(api, hex);
    ensure(objection === undefined || /priority/i.test(objection), `the pool objects: ${objection}`);
    const found = await included(hex, nonce, from);
    if (found) return { hex, nonce, attempt, ...found };
  }
  throw new Error('the agent took five nonces in a row');
}

let accepted;
await need('accepted: a batch signed by the duty key is included, and its bad record reported', async () => {
  const { hex, nonce, attempt, block, after, events } = await sendBatch();
  accepted = hex;
  const names = events.map((event) => `${event.section}.${event.method}`);
  const rejected = events.find((event) => api.events.inferenceLedger.RecordRejected.is(event));
  ensure(rejected, `no RecordRejected among ${names}`);
  same(rejected.data.host.toString(), host.address, 'the Host');
  same(rejected.data.kind.toString(), 'StartMany', 'the kind');
  same(rejected.data.reason.toString(), 'UnknownPayer', 'the reason');
  ensure(names.includes('system.ExtrinsicSuccess'), 'the dispatch failed');
  ensure(!names.includes('transactionPayment.TransactionFeePaid'), 'it cost a fee');
  ensure(after > nonce, 'the nonce of the lane did not move');
  return { block, nonce, attempt, events: names };
});

await check('replayed: the very same bytes are stale', async () => {
  same(await validity(api, accepted), 'Stale', "the runtime's judgement");
  const said = await refusal(api, accepted);
  // The pool remembers what was included for a while and does not even ask.
  ensure(said === 'Stale' || /banned|already/i.test(said), `the pool said ${said}`);
  return { pool: said };
});
await refused('the same payload under a fresh signature', 'Stale', () =>
  transaction(KINDS.startMany, batch(), { nonces: -1 }),
);
await refused('another batch with the used nonce', 'Stale', () =>
  transaction(KINDS.startMany, batch(5), { nonces: -1 }),
);

await end(() => api.disconnect());
