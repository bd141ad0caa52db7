-- A proxy wants the task that a message named. The hard limit on concurrent disks is here, whatever Celery
-- prefetches. A message that is not the one in force changes nothing; a good one that can't be granted makes
-- the task ready again at once. Repeating the call with the same token gives the same answer.
-- ARGV: task, n, kind, lane, proxy, life, token. Answers 'ok', epoch, counter, title, specification, checkpoint,
-- time, lease; or 'refused', code, requeued.
local id, n, kind, lane, proxy, life, token = unpack(ARGV)
local key = task_key(id)
local epoch = redis.call('HGET', META, 'epoch')
local task = fields(key, 'state', 'n', 'kind', 'title', 'lane', 'proxy', 'token', 'takes_slot', 'spec', 'checkpoint',
  'counter')
local times = timings()

local function granted(counter)
  return {'ok', epoch, counter, task.title, task.spec, task.checkpoint, stamp(now), stamp(times.lease_s)}
end
local function refused(code) return {'refused', code, 0} end
local function back_to_ready(code, note)
  make_ready(id, note)
  return {'refused', code, 1}
end

if not epoch then return refused('no-epoch') end
if not task.state then return refused('unknown') end
if task.kind ~= kind then return refused('altered') end
if task.state == 'running' and task.n == n and task.token == token then return granted(task.counter) end
if task.state ~= 'dispatched' or task.n ~= n then return refused('stale') end
if task.lane ~= lane then return refused('wrong-lane') end
if task.proxy and task.proxy ~= proxy then return refused('wrong-proxy') end

local record = fields(proxy_key(proxy), 'life', 'draining', 'left')
if record.life ~= life or record.left == '1' then return back_to_ready('unregistered', proxy .. ' is not registered') end
if record.draining == '1' or not is_enabled(proxy) then
  return back_to_ready('disabled', proxy .. ' takes no new tasks')
end
local clock = ledger_time(times.tick_s)
if task.takes_slot == '1' then
  if quiet_s(clock) > 0 then return back_to_ready('quiet', '') end
  redis.call('SADD', slots_key(proxy), id)
  redis.call('HSET', key, 'proxy', proxy)
  if slots_used(proxy, clock) > slot_limit(proxy) then return back_to_ready('full', proxy .. ' was full') end
end

local counter = tostring(redis.call('HINCRBY', META, 'counter', 1))
redis.call('HSET', key, 'state', 'running', 'since', stamp(now), 'started_at', stamp(now), 'proxy', proxy,
  'life', life, 'epoch', epoch, 'counter', counter, 'token', token, 'note', '')
redis.call('HINCRBY', key, 'attempts', 1)
begin_attempt(id, proxy)
redis.call('ZREM', DEADLINES, id)
redis.call('ZADD', LEASES, stamp(clock + times.lease_s), id)
return granted(counter)
