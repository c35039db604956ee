// Registers a Host: the one transaction of docs/operator.md, step 4.
//
// Environment: PACER_WS (the Host's own node, with unsafe RPC methods on this machine only), PACER_WALLET_URI (secret phrase
// of the wallet), PACER_DUTY_KEY_FILE (made by `pacer-agent keygen`), PACER_ENDPOINT (where others reach the agent),
// PACER_MODELS (ids on chain, separated by commas; 0).
import { readFileSync } from 'node:fs';
import { Keyring } from '@polkadot/keyring';
import { hexToU8a, stringToU8a, u8aConcat, u8aToHex } from '@polkadot/util';
import { blake2AsU8a } from '@polkadot/util-crypto';
import { connect, find, pair, send } from './lib/chain.mjs';
import { end, env, line, need } from './lib/check.mjs';

let api;
await need('registered', async () => {
  api = await connect(env('PACER_WS'));
  const wallet = pair(env('PACER_WALLET_URI'));
  const seed = readFileSync(env('PACER_DUTY_KEY_FILE'), 'utf8').trim().replace(/^0x/, '');
  const duty = new Keyring({ type: 'sr25519' }).addFromSeed(hexToU8a(`0x${seed}`));
  const models = env('PACER_MODELS', '0').split(',').map(Number);
  const { keys, proof } = await api.ask('author_rotateKeysWithOwner', u8aToHex(wallet.publicKey));
  const possession = blake2AsU8a(
    u8aConcat(stringToU8a('pacer/duty-key/v1'), api.genesisHash.toU8a(), wallet.publicKey),
  );
  const batch = api.tx.utility.batchAll([
    api.tx.session.setKeys(keys, proof),
    api.tx.hosts.register(duty.publicKey, env('PACER_ENDPOINT'), models, duty.sign(possession)),
  ]);
  const { events, block } = await send(api, batch, wallet);
  const registered = find(events, api.events.hosts.Registered, 'hosts.Registered');
  line({
    host: wallet.address,
    duty_key: u8aToHex(duty.publicKey),
    races_from_epoch: registered.racesFrom.toNumber(),
    block,
  });
});
await end(() => api.disconnect());
