-- A proxy ends in order; its name is free at once. What was reserved for it is ready again; tasks that it may
-- still hold keep their leases.
-- ARGV: proxy, life. Answers 'ok' or 'taken'.
local name, life = unpack(ARGV)
if redis.call('HGET', proxy_key(name), 'life') ~= life then return {'taken'} end
redis.call('HSET', proxy_key(name), 'left', 1)
for _, id in ipairs(redis.call('ZRANGE', DEADLINES, 0, -1)) do
  if redis.call('HGET', task_key(id), 'proxy') == name then make_ready(id, name .. ' has left') end
end
ring()
return {'ok'}
