-- A holder hands its task back, with what it has. May be repeated.
-- ARGV: task, epoch, counter, token, checkpoint or '', note. Answers 'ok' or 'lost'.
local id, epoch, counter, token, checkpoint, note = unpack(ARGV)
local key = task_key(id)
local task = fields(key, 'state', 'verdict')
if task.state ~= 'running' or not fence_holds(id, epoch, counter, token) then return refuse_fence() end
if checkpoint ~= '' then keep_checkpoint(id, checkpoint) end
if task.verdict == 'cancel' then finish(id, 'cancelled', '') else make_ready(id, note) end
return 'ok'
