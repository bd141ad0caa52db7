-- One reaping pass: moves the ledger's clock and gives up what has expired on it.
-- ARGV: epoch, the server's run_id. Answers 'ok' or 'stale', the tasks that are ready again, and those that ended.
local epoch, run_id = unpack(ARGV)
if not epoch_is(epoch) then return {'stale', {}, {}} end
local times = timings()
local clock = ledger_time(times.tick_s)
local former = redis.call('HGET', META, 'run_id')
redis.call('HSET', META, 'clock', stamp(clock), 'passed_at', stamp(now), 'run_id', run_id)
local requeued, ended = {}, {}
if former and former ~= run_id then
  -- The server was restarted. Holders get the time to find it again. A message may have been on its way when it
  -- went; one that wasn't is stale from now on.
  for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    redis.call('ZADD', LEASES, 'XX', 'GT', stamp(clock + times.reap_grace_s), id)
  end
  requeued = redis.call('ZRANGE', DEADLINES, 0, -1)
  for _, id in ipairs(requeued) do make_ready(id, 'Redis was restarted before a proxy took it') end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', stamp(clock))) do
  local lane = redis.call('HGET', task_key(id), 'lane')
  make_ready(id, 'no proxy took it from ' .. lane .. ' in time')
  requeued[#requeued + 1] = id
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', stamp(clock))) do
  local task = fields(task_key(id), 'state', 'proxy')
  if task.state == 'running' then -- unless it was given up with the other one of its pair
    local over = lose_holder(id, task.proxy .. ' stopped renewing its lease', false)
    if over then ended[#ended + 1] = id else requeued[#requeued + 1] = id end
  end
end
return {'ok', requeued, ended}
