-- A holder is done. A failure of a task that was to be cancelled is its cancellation. May be repeated.
-- ARGV: task, epoch, counter, token, 'done' or 'failed', outcome(JSON). Answers 'ok' or 'lost'.
local id, epoch, counter, token, state, outcome = unpack(ARGV)
if not fence_holds(id, epoch, counter, token) then return refuse_fence() end
local task = fields(task_key(id), 'state', 'verdict')
if task.state == 'running' then
  if state == 'failed' and task.verdict == 'cancel' then state = 'cancelled' end
  finish(id, state, outcome)
end
return 'ok'
