-- The key schema of the ledger and what every transition shares; stands in front of each script.
-- All keys begin with KEYS[1], whose braces put them into one hash slot. Times: `now` is the server's Unix
-- time; ledger time is a clock of its own that only `reap.lua` moves, by at most one tick a pass.
--
--   meta                hash  epoch, term (of the scheduler that leads), counter (of fences), clock, passed_at, run_id, quiet_until,
--                             timings (JSON), refused_fences (how many), shared_at (when limits were, among many),
--                             sharers (how many), taken:<rule> (what is held of it, since then)
--   tasks               set   ids of tasks that have not ended
--   task:<id>           hash  kind title takes_slot caps(JSON) state since n lane spec proxy instance life
--                             epoch counter token attempts lost died checkpoint progress verdict note log(JSON)
--                             quarantined (after so many deaths)
--                             partner (the other task of a pair, while both are in flight)
--                             started_at ended_at outcome(JSON) history(JSON)
--   deadlines, leases   zset  task id -> ledger time at which its message, or its holder, is given up
--   finished            zset  ids of tasks that ended and are not acknowledged -> Unix time
--   proxies             set   names
--   proxy:<name>        hash  registration(JSON) instance life lock heartbeat draining note left
--                             lost_leases (how many)
--   orders:<name>       hash  lanes(JSON) enabled max_concurrent_tasks
--   slots:<name>        set   ids of tasks that hold one
--   residue:<name>      zset  tasks of a former epoch -> ledger time until which their slot stays taken
--   caps                set   names of caps that somebody holds
--   cap:<name>          set   ids of tasks that hold it
--   traffic             hash  limit:<rule> -> bytes per second; flow:<kind>:<repository>:<proxy> -> rules (JSON) that
--                             hold for what goes between these
--   shares              hash  <epoch>.<counter> of a fence -> what its holder may send of limits (JSON): task flow job
--                             wanted held offered rate (it is to have) serial kept_until
--   bell                list  has an element when something happened that a dispatcher may act on

local PREFIX = KEYS[1]
local META = PREFIX .. 'meta'
local TASKS = PREFIX .. 'tasks'
local DEADLINES = PREFIX .. 'deadlines'
local LEASES = PREFIX .. 'leases'
local FINISHED = PREFIX .. 'finished'
local PROXIES = PREFIX .. 'proxies'
local CAPS = PREFIX .. 'caps'
local BELL = PREFIX .. 'bell'
local TRAFFIC = PREFIX .. 'traffic'
local SHARES = PREFIX .. 'shares'

local function task_key(id) return PREFIX .. 'task:' .. id end
local function proxy_key(name) return PREFIX .. 'proxy:' .. name end
local function orders_key(name) return PREFIX .. 'orders:' .. name end
local function slots_key(name) return PREFIX .. 'slots:' .. name end
local function residue_key(name) return PREFIX .. 'residue:' .. name end
local function cap_key(name) return PREFIX .. 'cap:' .. name end

local function server_time()
  local parts = redis.call('TIME')
  return tonumber(parts[1]) + tonumber(parts[2]) / 1000000
end

local now = server_time()

local function stamp(seconds) return string.format('%.6f', seconds) end

-- Some fields of a hash as a table; absent ones are false.
local function fields(key, ...)
  local values = redis.call('HMGET', key, ...)
  local found = {}
  for i, name in ipairs({...}) do found[name] = values[i] end
  return found
end

local function timings()
  return cjson.decode(redis.call('HGET', META, 'timings') or '{}')
end

local function ledger_time(tick_s)
  local meta = fields(META, 'clock', 'passed_at')
  local elapsed = now - tonumber(meta.passed_at or now)
  return tonumber(meta.clock or 0) + math.max(0, math.min(elapsed, tick_s))
end

-- Wake whoever waits in BLPOP; one element says as much as many.
local function ring()
  redis.call('LPUSH', BELL, '1')
  redis.call('LTRIM', BELL, 0, 0)
end

-- Free the slot and the caps of a task and forget its deadline and lease.
local function let_go(id)
  local task = fields(task_key(id), 'proxy', 'caps')
  if task.proxy then redis.call('SREM', slots_key(task.proxy), id) end
  for _, cap in ipairs(cjson.decode(task.caps)) do
    redis.call('SREM', cap_key(cap), id)
    if redis.call('SCARD', cap_key(cap)) == 0 then redis.call('SREM', CAPS, cap) end
  end
  redis.call('ZREM', DEADLINES, id)
  redis.call('ZREM', LEASES, id)
end

-- A task's history has one entry for each time it was claimed, the newest ones only.
local ATTEMPTS_KEPT = 20

local function begin_attempt(id, proxy)
  local history = cjson.decode(redis.call('HGET', task_key(id), 'history') or '[]')
  history[#history + 1] = {proxy = proxy, started_at = now}
  if #history > ATTEMPTS_KEPT then table.remove(history, 1) end
  redis.call('HSET', task_key(id), 'history', cjson.encode(history))
end

local function end_attempt(id, outcome, note)
  local task = fields(task_key(id), 'state', 'history', 'progress')
  if task.state ~= 'running' or not task.history then return end
  local history = cjson.decode(task.history)
  local attempt = history[#history]
  attempt.ended_at, attempt.outcome, attempt.note = now, outcome, note
  -- A proxy wrote it, and nothing that a proxy writes may stand in the way of giving its task up.
  local readable, progress = pcall(cjson.decode, task.progress or '')
  if readable and type(progress) == 'table' then attempt.processed_bytes = progress.processed_bytes end
  redis.call('HSET', task_key(id), 'history', cjson.encode(history))
end

-- A holder's share of limits ends with its lease.
local function drop_share(id)
  local task = fields(task_key(id), 'epoch', 'counter')
  if task.counter then redis.call('HDEL', SHARES, task.epoch .. '.' .. task.counter) end
end

local function requeue(id, note)
  let_go(id)
  drop_share(id)
  end_attempt(id, 'requeued', note)
  local key = task_key(id)
  redis.call('HDEL', key, 'lane', 'spec', 'proxy', 'instance', 'life', 'epoch', 'counter', 'token', 'progress', 'partner')
  redis.call('HSET', key, 'state', 'ready', 'since', stamp(now), 'note', note)
  ring()
end

local function finish(id, state, outcome)
  let_go(id)
  drop_share(id)
  local key = task_key(id)
  end_attempt(id, state, redis.call('HGET', key, 'note') or '')
  redis.call('HDEL', key, 'spec', 'progress')
  redis.call('HSET', key, 'state', state, 'since', stamp(now), 'ended_at', stamp(now), 'outcome', outcome)
  redis.call('SREM', TASKS, id)
  redis.call('ZADD', FINISHED, stamp(now), id)
  ring()
end

-- Make a task ready again, and with it the other one of its pair: both are in flight, or neither is. A holder that
-- loses its task so keeps its slot for a lease, in which it learns of that and stops.
local function make_ready(id, note)
  local partner = redis.call('HGET', task_key(id), 'partner')
  requeue(id, note)
  if not partner then return end
  local other = fields(task_key(partner), 'state', 'proxy', 'partner', 'verdict')
  if other.partner ~= id then return end
  if other.state ~= 'reserved' and other.state ~= 'dispatched' and other.state ~= 'running' then return end
  if other.state == 'running' then
    local times = timings()
    local until_then = ledger_time(times.tick_s) + times.lease_s
    redis.call('ZADD', residue_key(other.proxy), stamp(until_then), 'former/' .. partner)
  end
  if other.verdict == 'cancel' then finish(partner, 'cancelled', '') else requeue(partner, note) end
end

-- Make ready what was announced to this proxy alone. Answers the tasks.
local function take_back_from(proxy, note)
  local tasks = {}
  for _, id in ipairs(redis.call('ZRANGE', DEADLINES, 0, -1)) do
    if redis.call('HGET', task_key(id), 'proxy') == proxy then
      make_ready(id, note)
      tasks[#tasks + 1] = id
    end
  end
  return tasks
end

-- A holder got somewhere: what vanished before it doesn't count any more.
local function keep_checkpoint(id, checkpoint)
  redis.call('HSET', task_key(id), 'checkpoint', checkpoint, 'lost', 0, 'died', 0)
end

-- A holder is gone without a word; `log` (JSON) is what it last wrote when its process alone died, else false.
-- Answers whether the task has ended with it.
local function lose_holder(id, note, log)
  local key = task_key(id)
  local lost = redis.call('HINCRBY', key, 'lost', 1)
  local died = 0
  if log then
    died = redis.call('HINCRBY', key, 'died', 1)
    redis.call('HSET', key, 'log', log)
  end
  local proxy = redis.call('HGET', key, 'proxy')
  if proxy then redis.call('HINCRBY', proxy_key(proxy), 'lost_leases', 1) end
  redis.call('HSET', key, 'note', note)
  if redis.call('HGET', key, 'verdict') == 'cancel' then
    finish(id, 'cancelled', '')
    return true
  end
  local times = timings()
  if died >= times.max_deaths then redis.call('HSET', key, 'quarantined', died) end
  if lost >= times.max_lost_attempts or died >= times.max_deaths then
    finish(id, 'failed', '')
    return true
  end
  make_ready(id, note)
  return false
end

-- Whether the fence in ARGV[first], … is the one that the task was last claimed with.
local function fence_holds(id, epoch, counter, token)
  local task = fields(task_key(id), 'epoch', 'counter', 'token')
  return task.token == token and task.epoch == epoch and task.counter == counter
end

-- What a holder is told whose fence holds no more.
local function refuse_fence()
  redis.call('HINCRBY', META, 'refused_fences', 1)
  return 'lost'
end

-- Whether a scheduler's call counts, by its `<epoch>.<term>`: another one may have taken over within the epoch.
local function epoch_is(claimed)
  local meta = fields(META, 'epoch', 'term')
  return (meta.epoch or '') .. '.' .. (meta.term or '0') == claimed
end

-- How long no slot may be given out, because holders that this ledger doesn't know may still be at work.
local function quiet_s(clock)
  return math.max(0, tonumber(redis.call('HGET', META, 'quiet_until') or 0) - clock)
end

local function slots_used(name, clock)
  redis.call('ZREMRANGEBYSCORE', residue_key(name), '-inf', stamp(clock))
  return redis.call('SCARD', slots_key(name)) + redis.call('ZCARD', residue_key(name))
end

local function slot_limit(name)
  local registration = redis.call('HGET', proxy_key(name), 'registration')
  local limit = cjson.decode(registration).max_concurrent_tasks
  local ordered = tonumber(redis.call('HGET', orders_key(name), 'max_concurrent_tasks') or '')
  if ordered then limit = math.min(limit, ordered) end
  return limit
end

local function is_enabled(name)
  return redis.call('HGET', orders_key(name), 'enabled') ~= '0'
end

local function is_live(proxy, proxy_timeout_s)
  -- The server's clock may have been set back: a heartbeat from the future says nothing.
  return proxy.left == '0' and math.abs(now - tonumber(proxy.heartbeat or 0)) < proxy_timeout_s
end

-- Give a task its caps and, where a proxy is named, a slot there if it takes one. Answers nothing; or, when it can't
-- have them, a refusal's code and detail, and it has nothing.
local function reserve(id, proxy, limits)
  local task = fields(task_key(id), 'caps', 'takes_slot')
  local times = timings()
  local clock = ledger_time(times.tick_s)
  local needs_slot = task.takes_slot == '1'
  if needs_slot and quiet_s(clock) > 0 then return 'quiet', '' end
  local caps, cap_limits = cjson.decode(task.caps), cjson.decode(limits)
  for _, cap in ipairs(caps) do
    local limit = cap_limits[cap]
    if limit and redis.call('SCARD', cap_key(cap)) >= limit then return 'cap-full', cap end
  end
  if proxy ~= '' then
    local record = fields(proxy_key(proxy), 'heartbeat', 'left', 'draining')
    if not is_live(record, times.proxy_timeout_s) or record.draining == '1' then return 'proxy-away', proxy end
    if not is_enabled(proxy) then return 'proxy-disabled', proxy end
    if needs_slot then
      if slots_used(proxy, clock) >= slot_limit(proxy) then return 'proxy-full', proxy end
      redis.call('SADD', slots_key(proxy), id)
    end
    redis.call('HSET', task_key(id), 'proxy', proxy)
  end
  for _, cap in ipairs(caps) do
    redis.call('SADD', cap_key(cap), id)
    redis.call('SADD', CAPS, cap)
  end
end

-- Announce a task that has what it needs: its message may be published, and is waited for until a deadline.
local function announce(id, n, lane, spec)
  local times = timings()
  redis.call('HSET', task_key(id), 'state', 'dispatched', 'since', stamp(now), 'n', n, 'lane', lane, 'spec', spec)
  redis.call('ZADD', DEADLINES, stamp(ledger_time(times.tick_s) + times.dispatch_deadline_s), id)
end
