-- Reserve the caps of a ready task, and a slot where a proxy is named, and keep its signed specification: the
-- message (task, n) may be published. One that is reserved on that proxy already needs nothing more. Repeating the call
-- of a dispatch that is in force changes nothing.
-- ARGV: epoch, task, n, lane, proxy or '', specification, {cap: limit}(JSON). Answers 'ok' or a refusal's code
-- and detail.
local epoch, id, n, lane, proxy, spec, limits = unpack(ARGV)
if not epoch_is(epoch) then return {'stale', ''} end
local task = fields(task_key(id), 'state', 'n', 'spec', 'proxy')
if task.state == 'dispatched' and task.n == n and task.spec == spec then return {'ok', ''} end
local reserved = task.state == 'reserved' and task.proxy == proxy
if not reserved and task.state ~= 'ready' or tonumber(task.n) + 1 ~= tonumber(n) then
  return {'not-ready', task.state or 'unknown'}
end
if not reserved then
  local code, detail = reserve(id, proxy, limits)
  if code then return {code, detail} end
end
announce(id, n, lane, spec)
return {'ok', ''}
