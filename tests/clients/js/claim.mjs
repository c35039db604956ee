// A wallet claims what its Host earned, with @polkadot/api: the claim pays exactly what was open, costs no fee, and pays once.
//
// Environment: PACER_WS (a node), PACER_CLAIM_URI (the wallet; //Alice). Waits up to PACER_CLAIM_WAIT_S (0) seconds for
// something to become claimable.
import { balance, connect, eventually, find, outcome, pair, send } from './lib/chain.mjs';
import { check, end, ensure, env, need, same } from './lib/check.mjs';

const wallet = pair(env('PACER_CLAIM_URI', '//Alice'));
const patience = Number(env('PACER_CLAIM_WAIT_S', '0'));
let api;
await need('the library connects', async () => {
  api = await connect(env('PACER_WS'));
});

/** What the wallet can claim: epochs and amounts, oldest first. */
async function claimable() {
  const list = await api.call.pacerApi.claimable(wallet.address);
  return list.map(([epoch, amount]) => ({ epoch: epoch.toNumber(), amount: amount.toBigInt() }));
}

let open = [];
await need('rewards are waiting', async () => {
  open = await claimable();
  if (open.length === 0 && patience > 0) {
    open = await eventually(
      api,
      'earning something',
      async () => {
        const now = await claimable();
        return now.length > 0 && now;
      },
      patience * 1_000,
    );
  }
  ensure(open.length > 0, `nothing is claimable by ${wallet.address}`);
  return { wallet: wallet.address, open };
});

const epochs = open.map(({ epoch }) => epoch);
const sum = open.reduce((total, { amount }) => total + amount, 0n);

await check('the claim pays exactly what was open, without a fee', async () => {
  const { events, block } = await send(api, api.tx.rewards.claim(epochs), wallet);
  const claimed = find(events, api.events.rewards.Claimed, 'rewards.Claimed');
  same(claimed.host.toString(), wallet.address, 'who claimed');
  same(
    claimed.epochs.map((epoch) => epoch.toNumber()),
    epochs,
    'the epochs',
  );
  same(claimed.amount.toBigInt(), sum, 'the amount');
  // Between the block before and this one nothing else moves this wallet's money: its balance grew by the claim alone.
  const { parentHash } = await api.rpc.chain.getHeader(block);
  const free = async (hash) => (await (await api.at(hash)).query.system.account(wallet.address)).data.free.toBigInt();
  same((await free(block)) - (await free(parentHash)), sum, 'what the balance grew by');
  return { epochs, amount: sum };
});

await check('a second claim of the same epochs fails, and pays nothing', async () => {
  const before = await balance(api, wallet.address);
  const { error } = await outcome(api, api.tx.rewards.claim(epochs), wallet);
  same(error?.split(':')[0], 'rewards.NothingToClaim', 'the error');
  ensure((await balance(api, wallet.address)) <= before, 'the balance grew');
  return { error };
});

await check('nothing of it is claimable any more', async () => {
  const left = await claimable();
  ensure(
    left.every(({ epoch }) => !epochs.includes(epoch)),
    'a claimed epoch is still open',
  );
});

await end(() => api.disconnect());
