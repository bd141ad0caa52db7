-- Reserve what both tasks of a pair need, or nothing: the first is announced to its proxy, the second keeps its slot
-- until it is dispatched, once the first is ready for it. Repeating the call of a dispatch that is in force changes
-- nothing.
-- ARGV: epoch, task, n, lane, proxy, specification of the first; task, proxy of the second; {cap: limit}(JSON). Answers
-- 'ok' or a refusal's code and detail.
local epoch, first, n, lane, proxy, spec, second, second_proxy, limits = unpack(ARGV)
if not epoch_is(epoch) then return {'stale', ''} end
local task = fields(task_key(first), 'state', 'n', 'spec', 'partner')
local other = fields(task_key(second), 'state')
if task.state == 'dispatched' and task.n == n and task.spec == spec then return {'ok', ''} end
if task.state ~= 'ready' or tonumber(task.n) + 1 ~= tonumber(n) then return {'not-ready', task.state or 'unknown'} end
if other.state ~= 'ready' then return {'not-ready', other.state or 'unknown'} end
local code, detail = reserve(first, proxy, limits)
if code then return {code, detail} end
code, detail = reserve(second, second_proxy, limits)
if code then
  let_go(first)
  redis.call('HDEL', task_key(first), 'proxy')
  return {code, detail}
end
redis.call('HSET', task_key(first), 'partner', second)
redis.call('HSET', task_key(second), 'partner', first, 'state', 'reserved', 'since', stamp(now))
announce(first, n, lane, spec)
return {'ok', ''}
