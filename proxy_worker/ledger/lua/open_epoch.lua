-- Begin an epoch: tasks that have not ended are forgotten (the caller submits them again), and what they held
-- stays taken for one lease. A ledger that had nothing gives out no slot for that long, unless it is a first one.
-- ARGV: epoch, timings(JSON), term. Answers 'ok' or 'stale' and the epoch in force.
local epoch, limits = ARGV[1], cjson.decode(ARGV[2])
local current = redis.call('HGET', META, 'epoch')
if current and tonumber(current) >= tonumber(epoch) then return {'stale', current} end

local clock = ledger_time(limits.tick_s)
for _, id in ipairs(redis.call('SMEMBERS', TASKS)) do
  local task = fields(task_key(id), 'state', 'proxy', 'takes_slot')
  let_go(id)
  if task.state == 'running' and task.takes_slot == '1' then
    redis.call('ZADD', residue_key(task.proxy), stamp(clock + limits.lease_s), current .. '/' .. id)
  end
  redis.call('DEL', task_key(id))
  redis.call('SREM', TASKS, id)
end
if not current then
  redis.call('HSET', META, 'clock', stamp(clock))
  if tonumber(epoch) > 1 then redis.call('HSET', META, 'quiet_until', stamp(clock + limits.lease_s)) end
end
redis.call('HSET', META, 'epoch', epoch, 'term', ARGV[3], 'timings', ARGV[2], 'clock', stamp(clock), 'passed_at', stamp(now))
ring()
return {'ok', epoch}
