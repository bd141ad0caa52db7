-- The timings that the scheduler set. Answers JSON, or false before any epoch.
return redis.call('HGET', META, 'timings')
