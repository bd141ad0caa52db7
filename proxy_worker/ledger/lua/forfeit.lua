-- The process that had taken a message is dead, says its parent: nobody has to wait for the lease.
-- ARGV: task, n, proxy, life, why, log(JSON): its last lines. Answers 'ok', 'ended' when that was once too often, or
-- 'lost'.
local id, n, proxy, life, why, log = unpack(ARGV)
local task = fields(task_key(id), 'state', 'n', 'proxy', 'life')
if task.n ~= n then return 'lost' end
local note = 'its process on ' .. proxy .. ' ' .. why
local over
if task.state == 'running' and task.proxy == proxy and task.life == life then
  over = lose_holder(id, note, log)
elseif task.state == 'dispatched' then
  over = lose_holder(id, note, false)
else
  return 'lost'
end
return over and 'ended' or 'ok'
