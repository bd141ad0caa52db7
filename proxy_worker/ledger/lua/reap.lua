-- One reaping pass: moves the ledger's clock and gives up what has expired on it.
-- ARGV: epoch, the server's run_id. Answers 'ok', 'grace' or 'stale', the tasks that are ready again, and
-- those that ended.
local epoch, run_id = unpack(ARGV)
if not epoch_is(epoch) then return {'stale', {}, {}} end
local times = timings()
local requeued, ended = {}, {}
local meta = fields(META, 'run_id', 'grace_until')
local grace_until = tonumber(meta.grace_until or 0)
if meta.run_id ~= run_id then
  if meta.run_id then
    grace_until = now + times.reap_grace_s
    -- A message may have been on its way when the server went; one that wasn't is stale from now on.
    requeued = redis.call('ZRANGE', DEADLINES, 0, -1)
    for _, id in ipairs(requeued) do make_ready(id, 'Redis was restarted before a proxy took it') end
  end
  redis.call('HSET', META, 'run_id', run_id, 'grace_until', stamp(grace_until))
end
-- The second condition: a server clock that jumped back must not stretch the grace.
if now < grace_until and grace_until - now <= times.reap_grace_s then
  redis.call('HSET', META, 'passed_at', stamp(now))
  return {'grace', requeued, ended}
end

local clock = ledger_time(times.tick_s)
redis.call('HSET', META, 'clock', stamp(clock), 'passed_at', stamp(now))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', stamp(clock))) do
  local lane = redis.call('HGET', task_key(id), 'lane')
  make_ready(id, 'no proxy took it from ' .. lane .. ' in time')
  requeued[#requeued + 1] = id
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', stamp(clock))) do
  local proxy = redis.call('HGET', task_key(id), 'proxy')
  local over = lose_holder(id, proxy .. ' stopped renewing its lease')
  if over then ended[#ended + 1] = id else requeued[#requeued + 1] = id end
end
return {'ok', requeued, ended}
