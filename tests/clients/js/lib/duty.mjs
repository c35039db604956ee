// What a duty key says, written by hand: the signed payload, and the general transaction (version 5) that carries it.
//
// Nothing here comes from @polkadot/api but the metadata: which extensions a transaction has, and the index of a call.
import { bnToU8a, compactToU8a, hexToU8a, stringToU8a, u8aConcat, u8aToHex } from '@polkadot/util';
import { blake2AsU8a } from '@polkadot/util-crypto';

const DOMAIN = stringToU8a('pacer/duty-call/v1');

/** Numbers as SCALE has them: little-endian, of fixed length. */
export const u32 = (n) => bnToU8a(n, { bitLength: 32, isLe: true });
export const u64 = (n) => bnToU8a(n, { bitLength: 64, isLe: true });

/** A list: its length, then its items. */
export const list = (items) => u8aConcat(compactToU8a(items.length), ...items);

/** Kinds of payload: number in what is signed, pallet and call that carry it. */
export const KINDS = {
  commit: { number: 0, section: 'sprint', method: 'commit' },
  voteCount: { number: 1, section: 'sprint', method: 'voteCount' },
  startMany: { number: 3, section: 'inferenceLedger', method: 'startMany' },
};

/** A record of `start_many`; the ledger judges it, the pool does not. */
export function startRecord({ payer, sequence, model, maxCostMicro, attempt }) {
  return u8aConcat(
    u32(payer),
    u32(sequence),
    new Uint8Array(32),
    u32(model),
    u32(maxCostMicro),
    new Uint8Array([attempt]),
  );
}

/** Who speaks (32 bytes), of which epoch, with which nonce, valid until which slot. */
export function header({ host, epoch, nonce, validUntil }) {
  return u8aConcat(host, u32(epoch), u64(nonce), u64(validUntil));
}

/** The message that the duty key signs. */
export function signingHash(genesis, head, kind, body) {
  return blake2AsU8a(u8aConcat(DOMAIN, genesis, head, new Uint8Array([kind.number]), body));
}

/** The encoded call: its index, the header, the arguments, the signature. */
export function call(api, kind, head, body, signature) {
  return u8aConcat(api.tx[kind.section][kind.method].callIndex, head, body, signature);
}

/**
 * The extension part of a transaction that no wallet signs, in the order of the metadata. Four extensions carry a field;
 * all fields have a neutral value.
 */
function extension(api) {
  const neutral = { CheckMortality: [0], CheckNonce: [0], ChargeTransactionPayment: [0], CheckMetadataHash: [0] };
  const parts = api.runtimeMetadata.asLatest.extrinsic.transactionExtensions.map(({ identifier, type }) => {
    const name = identifier.toString();
    const part = new Uint8Array(neutral[name] ?? []);
    const length = api.registry.createType(api.registry.createLookupType(type)).toU8a().length;
    if (length !== part.length) throw new Error(`${name} has ${length} bytes, not ${part.length}`);
    return part;
  });
  return u8aConcat(...parts);
}

const framed = (bytes) => u8aToHex(u8aConcat(compactToU8a(bytes.length), bytes));

/** A general transaction: version 5 with the bit "general", extension version 0, extension, call. */
export function general(api, encodedCall) {
  return framed(u8aConcat(new Uint8Array([0x45, 0x00]), extension(api), encodedCall));
}

/** The same call without extension: an unsigned transaction of the old kind. */
export function bare(encodedCall) {
  return framed(u8aConcat(new Uint8Array([0x05]), encodedCall));
}

/**
 * Why the pool refuses a transaction: `Custom N`, `BadProof`, `Stale`, `Future`, or the node's own words; undefined if it
 * does not.
 */
export async function refusal(api, transaction) {
  try {
    await api.ask('author_submitExtrinsic', transaction);
    return undefined;
  } catch (error) {
    const text = String(error.message);
    const custom = /Custom error: (\d+)/.exec(text);
    if (custom) return `Custom ${custom[1]}`;
    if (/bad signature/i.test(text)) return 'BadProof';
    if (/outdated/i.test(text)) return 'Stale';
    if (/valid in the future/i.test(text)) return 'Future';
    return text;
  }
}

/** What the runtime says of a transaction, whatever the pool remembers of it. */
export async function validity(api, transaction) {
  const at = await api.rpc.chain.getBlockHash();
  // Source: external.
  const data = u8aToHex(u8aConcat(new Uint8Array([2]), hexToU8a(transaction), at.toU8a()));
  const answer = await api.ask('state_call', 'TaggedTransactionQueue_validate_transaction', data, at.toHex());
  const bytes = hexToU8a(answer);
  if (bytes[0] === 0) return 'Valid';
  const invalid = ['Call', 'Payment', 'Future', 'Stale', 'BadProof', 'AncientBirthBlock', 'ExhaustsResources'];
  if (bytes[1] !== 0) return 'Unknown';
  return bytes[2] === 7 ? `Custom ${bytes[3]}` : (invalid[bytes[2]] ?? `Invalid ${bytes[2]}`);
}
