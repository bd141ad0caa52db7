-- What a task's holder is to do. 'cancel' is final, and ends a task that nobody holds at once.
-- ARGV: epoch, task, verdict. Answers 'ok', 'stale', or 'ended' for a task that is over or unknown.
local epoch, id, verdict = unpack(ARGV)
if not epoch_is(epoch) then return {'stale'} end
local key = task_key(id)
local task = fields(key, 'state', 'verdict')
local open = {ready = true, reserved = true, dispatched = true, running = true}
if not open[task.state] then return {'ended'} end
if task.verdict == 'cancel' then return {'ok'} end
redis.call('HSET', key, 'verdict', verdict)
if verdict == 'cancel' and task.state ~= 'running' then finish(id, 'cancelled', '') end
return {'ok'}
