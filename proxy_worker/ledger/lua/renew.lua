-- A holder proves that it is alive, and tells how far it is.
-- ARGV: task, epoch, counter, token, checkpoint or '', progress(JSON) or ''. Answers 'ok', 'pause', 'cancel' or
-- 'lost'.
local id, epoch, counter, token, checkpoint, progress = unpack(ARGV)
local key = task_key(id)
local task = fields(key, 'state', 'verdict', 'partner')
if task.state ~= 'running' or not fence_holds(id, epoch, counter, token) then return refuse_fence() end
local times = timings()
redis.call('ZADD', LEASES, stamp(ledger_time(times.tick_s) + times.lease_s), id)
if progress ~= '' then
  redis.call('HSET', key, 'progress', progress)
  -- The other one of its pair may wait for what it tells.
  if task.partner and redis.call('HGET', task_key(task.partner), 'state') == 'reserved' then ring() end
end
if checkpoint ~= '' then keep_checkpoint(id, checkpoint) end
return task.verdict == 'run' and 'ok' or task.verdict
