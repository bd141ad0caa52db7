-- The process that had taken a message is dead, says its parent: nobody has to wait for the lease.
-- ARGV: task, n, proxy, life. Answers 'ok' or 'lost'.
local id, n, proxy, life = unpack(ARGV)
local task = fields(task_key(id), 'state', 'n', 'proxy', 'life')
if task.n ~= n then return 'lost' end
local note = 'its process on ' .. proxy .. ' died'
if task.state == 'running' and task.proxy == proxy and task.life == life then
  lose_holder(id, note)
elseif task.state == 'dispatched' then
  lose_holder(id, note)
else
  return 'lost'
end
return 'ok'
