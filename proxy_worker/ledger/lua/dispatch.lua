-- Reserve the caps of a ready task, and a slot where a proxy is named, and keep its signed specification: the
-- message (task, n) may be published. Repeating the call of a dispatch that is in force changes nothing.
-- ARGV: epoch, task, n, lane, proxy or '', specification, {cap: limit}(JSON). Answers 'ok' or a refusal's code
-- and detail.
local epoch, id, n, lane, proxy, spec, limits = unpack(ARGV)
if not epoch_is(epoch) then return {'stale', ''} end
local key = task_key(id)
local task = fields(key, 'state', 'n', 'spec', 'caps', 'takes_slot')
if task.state == 'dispatched' and task.n == n and task.spec == spec then return {'ok', ''} end
if task.state ~= 'ready' or tonumber(task.n) + 1 ~= tonumber(n) then
  return {'not-ready', task.state or 'unknown'}
end

local times = timings()
local clock = ledger_time(times.tick_s)
local needs_slot = task.takes_slot == '1'
if needs_slot and quiet_s(clock) > 0 then return {'quiet', ''} end
local caps, cap_limits = cjson.decode(task.caps), cjson.decode(limits)
for _, cap in ipairs(caps) do
  local limit = cap_limits[cap]
  if limit and redis.call('SCARD', cap_key(cap)) >= limit then return {'cap-full', cap} end
end
if proxy ~= '' then
  local record = fields(proxy_key(proxy), 'heartbeat', 'left', 'draining')
  if not is_live(record, times.proxy_timeout_s) or record.draining == '1' then return {'proxy-away', proxy} end
  if not is_enabled(proxy) then return {'proxy-disabled', proxy} end
  if needs_slot then
    if slots_used(proxy, clock) >= slot_limit(proxy) then return {'proxy-full', proxy} end
    redis.call('SADD', slots_key(proxy), id)
  end
  redis.call('HSET', key, 'proxy', proxy)
end

for _, cap in ipairs(caps) do
  redis.call('SADD', cap_key(cap), id)
  redis.call('SADD', CAPS, cap)
end
redis.call('HSET', key, 'state', 'dispatched', 'since', stamp(now), 'n', n, 'lane', lane, 'spec', spec)
redis.call('ZADD', DEADLINES, stamp(clock + times.dispatch_deadline_s), id)
return {'ok', ''}
