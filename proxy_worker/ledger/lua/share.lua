-- A holder asks what it may send, tells what it wants, and what it allows itself now.
-- What it was offered counts as taken until it has confirmed less, since the answer may have been lost; and all of it
-- for as long as it may still be sending: the task's lease, which it stops before it ends, is the lease of the share.
-- ARGV: task, epoch, counter, token, flow, job, serial, allowed, wanted or -1 (all it can get); rates in bytes per
-- second. Answers 'free' (no rule holds), 'lost', or 'rate' and the rate.
local FEW, KEPT_FOR_EACH_S = 16, 0.001
local id, epoch, counter, token, flow, job, serial, allowed, wanted = unpack(ARGV)
local me = epoch .. '.' .. counter
serial, allowed, wanted = tonumber(serial), tonumber(allowed), tonumber(wanted)
if redis.call('HGET', task_key(id), 'state') ~= 'running' or not fence_holds(id, epoch, counter, token) then
  return {'lost'}
end

local limits, rules_of = {}, {}
local function rules(name)
  if rules_of[name] == nil then
    local found = redis.call('HGET', TRAFFIC, name)
    rules_of[name] = found and cjson.decode(found) or false
    for _, rule in ipairs(rules_of[name] or {}) do
      limits[rule] = limits[rule] or tonumber(redis.call('HGET', TRAFFIC, 'limit:' .. rule))
    end
  end
  return rules_of[name]
end
if not rules(flow) then
  redis.call('HDEL', SHARES, me)
  return {'free'}
end

local times = timings()
local clock = ledger_time(times.tick_s)
local before = redis.call('HGET', SHARES, me)
before = before and cjson.decode(before) or {held = 0, offered = 0, serial = -1}
if serial < before.serial then return {'rate', stamp(before.offered)} end  -- a call that was long on its way

-- Where there are many, it isn't for each call that everybody's claims are looked at: what each is to have is kept
-- for some milliseconds, and how much others have taken of each limit is kept up to date.
local own = {flow = flow, job = job, wanted = wanted, rate = before.rate or 0}
local claims, taken, left, growing = {}, {}, {}, {}
local shared = fields(META, 'shared_at', 'sharers')
local anew = not shared.shared_at or math.abs(now - shared.shared_at) >= shared.sharers * KEPT_FOR_EACH_S
if anew then
  -- Everybody's claims: those of this epoch are dropped with their task. `taken`: of each limit, by others.
  local current = redis.call('HGET', META, 'epoch')
  local everybody = redis.call('HGETALL', SHARES)
  for i = 1, #everybody, 2 do
    local key, share = everybody[i], cjson.decode(everybody[i + 1])
    local over, holds = share.kept_until <= clock, string.match(key, '^[^.]*') == current
    if over and holds then  -- a proxy of another version may have ended it
      local task = fields(task_key(share.task), 'state', 'epoch', 'counter')
      holds = task.state == 'running' and task.epoch .. '.' .. task.counter == key
    end
    if not rules(share.flow) or (over and not holds) then
      redis.call('HDEL', SHARES, key)
    elseif key ~= me then
      for _, rule in ipairs(rules(share.flow)) do
        taken[rule] = (taken[rule] or 0) + share.held
        -- A holder of a former epoch can't be asked for anything back.
        if not holds then left[rule] = (left[rule] or limits[rule]) - share.held end
      end
      share.key = key
      if holds then claims[#claims + 1] = share end
    end
  end
  claims[#claims + 1] = own
  for _, claim in ipairs(claims) do claim.rate = 0 end
  growing = claims
else
  for _, rule in ipairs(rules(flow)) do
    taken[rule] = tonumber(redis.call('HGET', META, 'taken:' .. rule) or 0) - before.held
  end
end

-- Raise what every job has equally, until its tasks have what they want, or a limit is used up.
for rule, limit in pairs(limits) do left[rule] = math.max(0, left[rule] or limit) end
while #growing > 0 do
  local tasks_of, load, step = {}, {}, math.huge
  for _, claim in ipairs(growing) do tasks_of[claim.job] = (tasks_of[claim.job] or 0) + 1 end
  for _, claim in ipairs(growing) do
    claim.weight = 1 / tasks_of[claim.job]
    if claim.wanted >= 0 then step = math.min(step, (claim.wanted - claim.rate) / claim.weight) end
    for _, rule in ipairs(rules_of[claim.flow]) do load[rule] = (load[rule] or 0) + claim.weight end
  end
  for rule, weight in pairs(load) do step = math.min(step, left[rule] / weight) end
  step = math.max(0, step)
  for rule, weight in pairs(load) do left[rule] = left[rule] - step * weight end
  local still = {}
  for _, claim in ipairs(growing) do
    claim.rate = claim.rate + step * claim.weight
    local grows = claim.wanted < 0 or claim.rate < claim.wanted - 0.5
    for _, rule in ipairs(rules_of[claim.flow]) do grows = grows and left[rule] > 0.5 end
    if grows then still[#still + 1] = claim end
  end
  growing = still
end

-- Less can be had at once; more, when others have confirmed that they gave it up.
local offered = own.rate
if offered > allowed then
  local room = math.huge
  for _, rule in ipairs(rules_of[flow]) do room = math.min(room, limits[rule] - (taken[rule] or 0)) end
  offered = math.max(allowed, math.min(offered, room))
end
local held = math.max(allowed, offered)
if serial == before.serial then held = math.max(held, before.held) end

local many = not anew or #claims > FEW
if anew and many then
  redis.call('HSET', META, 'shared_at', stamp(now), 'sharers', #claims)
  for rule in pairs(limits) do redis.call('HSET', META, 'taken:' .. rule, stamp(taken[rule] or 0)) end
  for _, claim in ipairs(claims) do
    if claim ~= own then redis.call('HSET', SHARES, claim.key, cjson.encode(claim)) end
  end
elseif anew then
  redis.call('HDEL', META, 'shared_at')
end
if many then
  for _, rule in ipairs(rules(flow)) do
    redis.call('HSET', META, 'taken:' .. rule, stamp((taken[rule] or 0) + held))
  end
end
redis.call('HSET', SHARES, me, cjson.encode({
  task = id, flow = flow, job = job, wanted = wanted, held = held, offered = offered, serial = serial,
  rate = own.rate, kept_until = clock + times.lease_s,
}))
return {'rate', stamp(offered)}
