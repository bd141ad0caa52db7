-- A holder asks what it may send, tells what it wants, and what it allows itself now.
-- What it was offered counts as taken until it has confirmed less, since the answer may have been lost; and all of it
-- for as long as it may still be sending: the task's lease, which it stops before it ends, is the lease of the share.
-- ARGV: task, epoch, counter, token, flow, job, serial, allowed, wanted or -1 (all it can get); rates in bytes per
-- second. Answers 'free' (no rule holds), 'lost', or 'rate' and the rate.
local FEW, KEPT_FOR_EACH_S = 16, 0.005
local id, epoch, counter, token, flow, job, serial, allowed, wanted = unpack(ARGV)
local me = epoch .. '.' .. counter
serial, allowed, wanted = tonumber(serial), tonumber(allowed), tonumber(wanted)
if redis.call('HGET', task_key(id), 'state') ~= 'running' or not fence_holds(id, epoch, counter, token) then
  return {'lost'}
end
local mine = redis.call('HGET', TRAFFIC, flow)
if not mine then
  redis.call('HDEL', SHARES, me)
  return {'free'}
end

local limits, rules_of = {}, {[flow] = cjson.decode(mine)}
local function rules(name)
  if rules_of[name] == nil then
    local found = redis.call('HGET', TRAFFIC, name)
    rules_of[name] = found and cjson.decode(found) or false
  end
  for _, rule in ipairs(rules_of[name] or {}) do
    limits[rule] = limits[rule] or tonumber(redis.call('HGET', TRAFFIC, 'limit:' .. rule))
  end
  return rules_of[name]
end
rules(flow)

local times = timings()
local clock = ledger_time(times.tick_s)
local current = redis.call('HGET', META, 'epoch')

-- Everybody's claims, without those of holders that are certainly over. `taken`: of each limit, by others.
local before = {held = 0, offered = 0, serial = -1}
local claims, taken, left = {}, {}, {}
local everybody = redis.call('HGETALL', SHARES)
for i = 1, #everybody, 2 do
  local key, share = everybody[i], cjson.decode(everybody[i + 1])
  local task = fields(task_key(share.task), 'state', 'epoch', 'counter')
  local holds = task.state == 'running' and task.epoch .. '.' .. task.counter == key
  local of_this_epoch = string.match(key, '^[^.]*') == current
  if key == me then
    before = share
  elseif not rules(share.flow) or (not holds and (of_this_epoch or share.kept_until <= clock)) then
    redis.call('HDEL', SHARES, key)
  else
    for _, rule in ipairs(rules(share.flow)) do
      taken[rule] = (taken[rule] or 0) + share.held
      -- A holder of a former epoch can't be asked for anything back.
      if not holds then left[rule] = (left[rule] or limits[rule]) - share.held end
    end
    share.key = key
    if holds then claims[#claims + 1] = share end
  end
end
if serial < before.serial then return {'rate', stamp(before.offered)} end  -- a call that was long on its way

local own = {flow = flow, job = job, wanted = wanted, rate = before.rate or 0}
claims[#claims + 1] = own

-- Raise what every job has equally, until its tasks have what they want, or a limit is used up. Where there are many,
-- not for each call: what each is to have is kept for some milliseconds.
local many = #claims > FEW
local since = now - tonumber(redis.call('HGET', META, 'shared_at') or 0)
local growing = {}
if not many or not before.rate or math.abs(since) >= #claims * KEPT_FOR_EACH_S then
  growing = claims
  for _, claim in ipairs(claims) do claim.rate = 0 end
end
local shared = #growing > 0
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
if shared and many then
  redis.call('HSET', META, 'shared_at', stamp(now))
  for _, claim in ipairs(claims) do
    if claim ~= own then redis.call('HSET', SHARES, claim.key, cjson.encode(claim)) end
  end
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
redis.call('HSET', SHARES, me, cjson.encode({
  task = id, flow = flow, job = job, wanted = wanted, held = held, offered = offered, serial = serial,
  rate = own.rate, kept_until = clock + times.lease_s,
}))
return {'rate', stamp(offered)}
