// @polkadot/api against a node: metadata, events, a transfer, a Host that registers, state.
//
// Environment: PACER_WS (a node), PACER_JOIN_WS (the node of the Host that joins; PACER_WS if absent: enough where the
// Host is not meant to make blocks), PACER_NEW_HOST_NAME (its keys are //NAME and //NAME//duty), PACER_NEW_HOST_ENDPOINT.
import { stringToU8a, u8aConcat, u8aToHex } from '@polkadot/util';
import { blake2AsU8a } from '@polkadot/util-crypto';
import { connect, balance, eventually, find, outcome, pair, send, within } from './lib/chain.mjs';
import { check, end, ensure, env, need, same } from './lib/check.mjs';

const url = env('PACER_WS');
const joinUrl = env('PACER_JOIN_WS', url);
const name = env('PACER_NEW_HOST_NAME', 'Polka');
const endpoint = env('PACER_NEW_HOST_ENDPOINT', 'http://127.0.0.1:9');
const token = 10n ** 12n;

let api;
await need('the library connects and decodes metadata', async () => {
  api = await connect(url);
  const { specName, specVersion } = api.runtimeVersion;
  same(specName.toString(), 'pacer', 'the runtime');
  const pallets = ['system', 'session', 'hosts', 'sprint', 'randomness', 'inferenceLedger', 'reputation', 'rewards'];
  for (const pallet of pallets) ensure(api.query[pallet], `the metadata holds no pallet ${pallet}`);
  same(api.registry.chainTokens, ['PCR'], 'the token');
  same(api.registry.chainDecimals, [12], 'its decimals');
  ensure(api.call.pacerApi, 'the runtime API is not in the metadata');
  // The library says so when it meets transaction extensions that are new to it. It then takes them to be empty, which is
  // true of the one it does not know; the transfer below shows that its transactions are accepted.
  return { spec: specVersion.toNumber(), complaints: api.complaints };
});

await check('transaction extensions that the library does not know are empty', () => {
  // These carry a field or sign something; the library knows all of them by name.
  const known = [
    'CheckSpecVersion',
    'CheckTxVersion',
    'CheckGenesis',
    'CheckMortality',
    'CheckNonce',
    'ChargeTransactionPayment',
    'CheckMetadataHash',
  ];
  const extensions = api.runtimeMetadata.asLatest.extrinsic.transactionExtensions;
  const names = extensions.map(({ identifier }) => identifier.toString());
  for (const { identifier, type, implicit } of extensions) {
    const bytes = [type, implicit].map(
      (id) => api.registry.createType(api.registry.createLookupType(id)).toU8a().length,
    );
    ensure(known.includes(identifier.toString()) || bytes.every((n) => n === 0), `${identifier} is new and not empty`);
  }
  for (const name of known) ensure(names.includes(name), `${name} is missing`);
  return { names };
});

const bob = pair('//Bob');
const newcomer = pair(`//Newcomer//${Date.now()}`);
await need('a transfer arrives, and its event is seen', async () => {
  let stop;
  const seen = new Promise((resolve, reject) => {
    api.query.system
      .events((records) => {
        const transfer = records
          .map(({ event }) => event)
          .find((e) => api.events.balances.Transfer.is(e) && e.data.to.eq(newcomer.address));
        if (transfer) resolve(transfer);
      })
      .then((unsubscribe) => (stop = unsubscribe), reject);
  });
  const { events, block } = await send(api, api.tx.balances.transferKeepAlive(newcomer.address, 5n * token), bob);
  const own = find(events, api.events.balances.Transfer, 'balances.Transfer');
  const subscribed = await within(seen, 'the event');
  stop();
  same(own.from.toString(), bob.address, 'the sender');
  same(own.amount.toBigInt(), 5n * token, 'the amount');
  same(subscribed.data.amount.toBigInt(), 5n * token, 'the amount that the subscription saw');
  same(await balance(api, newcomer.address, block), 5n * token, 'the balance');
  const fee = find(events, api.events.transactionPayment.TransactionFeePaid, 'transactionPayment.TransactionFeePaid');
  return { to: newcomer.address, fee: fee.actualFee.toBigInt() };
});

const host = pair(`//${name}`);
const duty = pair(`//${name}//duty`);
await need('an account becomes a Host with one signature', async () => {
  const bond = api.consts.hosts.hostBond.toBigInt();
  await send(api, api.tx.balances.transferKeepAlive(host.address, bond + 100n * token), bob);
  const node = joinUrl === url ? api : await connect(joinUrl);
  await eventually(
    node,
    'the money arriving at the joining node',
    async () => (await balance(node, host.address)) > bond,
    180_000,
  );
  const generated = await node.ask('author_rotateKeysWithOwner', u8aToHex(host.publicKey));
  // What the duty key signs to show that its owner wants it used by this account.
  const possession = blake2AsU8a(u8aConcat(stringToU8a('pacer/duty-key/v1'), api.genesisHash.toU8a(), host.publicKey));
  const batch = api.tx.utility.batchAll([
    api.tx.session.setKeys(generated.keys, generated.proof),
    api.tx.hosts.register(duty.publicKey, endpoint, [0], duty.sign(possession)),
  ]);
  const { events } = await send(api, batch, host);
  const registered = find(events, api.events.hosts.Registered, 'hosts.Registered');
  same(registered.host.toString(), host.address, 'the Host');
  same(registered.dutyKey.toHex(), u8aToHex(duty.publicKey), 'its duty key');
  if (node !== api) await node.disconnect();
  return { host: host.address, races_from: registered.racesFrom.toNumber(), keys: generated.keys };
});

await check('state and runtime API tell the same of the new Host', async () => {
  const info = (await api.query.hosts.hosts(host.address)).unwrap();
  same(info.endpoint.toUtf8(), endpoint, 'the endpoint');
  same(info.bond.toBigInt(), api.consts.hosts.hostBond.toBigInt(), 'the bond');
  const { data } = await api.query.system.account(host.address);
  ensure(data.reserved.toBigInt() >= info.bond.toBigInt(), 'the bond is not held');
  const keys = await api.query.session.nextKeys(host.address);
  ensure(keys.isSome, 'it has no session keys');
  const view = (await api.call.pacerApi.host(host.address)).unwrap();
  same(view.dutyKey.toHex(), info.dutyKey.toHex(), 'the duty key');
  same(view.consensus.toNumber(), 0, 'its weight before it raced');
  return { races_from: info.racesFrom.toNumber(), hosts: (await api.query.hosts.hostCount()).toNumber() };
});

await check('clock, weights, prices and rewards can be read', async () => {
  const { now } = await api.call.pacerApi.clock();
  const epoch = now.epoch.toNumber();
  const weights = (await api.query.sprint.weights(epoch)).unwrap();
  ensure(weights.length > 0 && weights.every((w) => w.work.toBigInt() > 0n), `the weights of epoch ${epoch} are empty`);
  const models = await api.call.pacerApi.models();
  ensure(models.length > 0, 'no model is registered');
  const rewards = await api.query.rewards.claimable.entries();
  const conservation = await api.call.pacerApi.conservation();
  ensure(conservation.ok.isTrue, `money is missing: ${conservation}`);
  return {
    epoch,
    phase: now.phase.toString(),
    slots_left: now.phaseEnd.toNumber() - now.slot.toNumber(),
    weights: Object.fromEntries(weights.map((w) => [w.host.toString(), [w.work.toNumber(), w.consensus.toNumber()]])),
    model: models[0].name.toUtf8(),
    claimable_hosts: rewards.length,
  };
});

await check('a duty key that is in use cannot be taken', async () => {
  const possession = blake2AsU8a(u8aConcat(stringToU8a('pacer/duty-key/v1'), api.genesisHash.toU8a(), bob.publicKey));
  const taken = (await api.query.hosts.hosts(bob.address)).isSome;
  const { error } = await outcome(
    api,
    api.tx.hosts.register(duty.publicKey, endpoint, [0], duty.sign(possession)),
    bob,
  );
  // On a network where Bob is a Host, that is found first.
  same(error?.split(':')[0], taken ? 'hosts.AlreadyRegistered' : 'hosts.DutyKeyTaken', 'the error');
  return { error };
});

await end(() => api.disconnect());
