-- A proxy ends in order; its name is free at once. What was reserved for it is ready again; tasks that it may
-- still hold keep their leases.
-- ARGV: proxy, life. Answers 'ok' or 'taken'.
local name, life = unpack(ARGV)
if redis.call('HGET', proxy_key(name), 'life') ~= life then return {'taken'} end
redis.call('HSET', proxy_key(name), 'left', 1)
take_back_from(name, name .. ' has left')
ring()
return {'ok'}
