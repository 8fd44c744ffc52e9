//! HTTP/1.1 in clear, to an arbiter's gateway: on this machine, or through a tunnel that authenticates.

use std::time::Duration;

use crate::arbiter::etcd::{ANSWER_MAX, Http};

/// A client of several servers that answer the same: whichever answers.
#[derive(Clone)]
pub struct HttpClient {
    agent: ureq::Agent,
    servers: Vec<String>,
}

impl HttpClient {
    /// `servers`: like `http://127.0.0.1:2379`.
    pub fn new(servers: Vec<String>) -> HttpClient {
        let agent = ureq::Agent::config_builder().http_status_as_error(true).max_redirects(0).build().into();
        HttpClient { agent, servers }
    }

    fn one(&self, server: &str, path: &str, body: &str, timeout: Duration) -> Result<String, ureq::Error> {
        let request = self.agent.post(format!("{server}{path}")).config().timeout_global(Some(timeout)).build();
        let mut answer = request.content_type("application/json").send(body)?;
        answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string()
    }
}

impl Http for HttpClient {
    /// The server that answered last is asked first. Each has its share of the time.
    fn post(&mut self, path: &str, body: &str, timeout: Duration) -> Result<String, String> {
        let share = timeout / self.servers.len().max(1) as u32;
        let mut last = "no servers".to_owned();
        for i in 0..self.servers.len() {
            match self.one(&self.servers[i], path, body, share) {
                Ok(answer) => {
                    self.servers.swap(0, i);
                    return Ok(answer);
                }
                Err(e) => last = format!("{}: {e}", self.servers[i]),
            }
        }
        Err(last)
    }
}
