//! What happens to the operator, the API server, etcd and the calls in one round, drawn from the seed; and does it to the real
//! processes.

use std::fmt;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::error::Result;
use crate::support::operator::Operator;

/// What is killed with SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTarget {
    Operator,
    ApiServer,
    Etcd,
    Both,
}

/// What one round does to the processes and to the cloud.
#[derive(Clone, Debug)]
pub struct KillPlan {
    pub target: KillTarget,
    /// Stands still for so long before that, with SIGSTOP.
    freeze: Option<Duration>,
    /// When it dies, from the beginning of the round; and how long it is dead.
    after: Duration,
    dead: Duration,
    /// Whether the operator dies as well while the API server or etcd does.
    together: bool,
    /// Whether the round waits until the new operator has listed everything.
    waits: bool,
    pub cloud: CloudFaults,
}

/// What goes wrong in the cloud meanwhile.
#[derive(Clone, Debug)]
pub struct CloudFaults {
    pub faults: Value,
    /// Whether some calls without an answer take effect late.
    pub late: bool,
    /// Whether Describe shows what was two seconds ago.
    pub lags: bool,
}

/// How often the API server, etcd or both die instead of the operator.
const CONTROL_PLANE_EVERY: usize = 17;

impl KillPlan {
    pub fn draw(random: &mut StdRng, round: usize) -> Self {
        let control_plane = round % CONTROL_PLANE_EVERY == CONTROL_PLANE_EVERY / 2;
        let drawn = [KillTarget::ApiServer, KillTarget::Etcd, KillTarget::Both];
        let turn = round / CONTROL_PLANE_EVERY;
        let mut milliseconds = |most| Duration::from_millis(random.random_range(0..most));
        let (after, dead) = (
            milliseconds(600),
            milliseconds(if control_plane { 2_000 } else { 150 }),
        );
        let freeze = milliseconds(2_500);
        Self {
            target: if control_plane {
                drawn[turn % drawn.len()]
            } else {
                KillTarget::Operator
            },
            freeze: (!control_plane && random.random_bool(0.1)).then_some(freeze),
            after,
            dead,
            together: random.random_bool(0.5),
            waits: random.random_bool(0.7),
            cloud: CloudFaults::draw(random),
        }
    }

    /// The operator dies, and nothing else goes wrong.
    pub fn once_more(random: &mut StdRng) -> Self {
        Self {
            target: KillTarget::Operator,
            freeze: None,
            after: Duration::from_millis(random.random_range(0..600)),
            dead: Duration::ZERO,
            together: false,
            waits: false,
            cloud: CloudFaults {
                faults: json!([]),
                late: false,
                lags: false,
            },
        }
    }

    /// Whether the round takes seconds.
    pub fn is_long(&self) -> bool {
        self.target != KillTarget::Operator || self.freeze.is_some()
    }

    /// Carries it out. `incarnation` numbers the processes of the operator.
    pub async fn execute(
        &self,
        plane: &mut ControlPlane,
        operator: &mut Operator,
        incarnation: &AtomicU64,
    ) -> Result<()> {
        tokio::time::sleep(self.after).await;
        if let Some(time) = self.freeze {
            operator.process().signal("STOP")?;
            tokio::time::sleep(time).await;
            operator.process().signal("CONT")?;
            tokio::time::sleep(self.after).await;
        }
        match self.target {
            KillTarget::Operator => {
                operator.kill();
                tokio::time::sleep(self.dead).await;
            }
            KillTarget::ApiServer => {
                plane.stop_api_server();
                self.die_together(operator).await;
                plane.start_api_server().await?;
            }
            KillTarget::Etcd => {
                plane.stop_etcd();
                self.die_together(operator).await;
                plane.start_etcd()?;
                plane.wait_until_ready().await?;
            }
            KillTarget::Both => {
                plane.stop_api_server();
                plane.stop_etcd();
                self.die_together(operator).await;
                plane.start_etcd()?;
                plane.start_api_server().await?;
            }
        }
        if self.target == KillTarget::Operator || self.together {
            incarnation.fetch_add(1, Ordering::Relaxed);
            operator.respawn()?;
        }
        if self.waits {
            operator.wait_until_ready().await?;
        }
        Ok(())
    }

    async fn die_together(&self, operator: &mut Operator) {
        tokio::time::sleep(self.dead / 2).await;
        if self.together {
            operator.kill();
        }
        tokio::time::sleep(self.dead / 2).await;
    }
}

impl fmt::Display for KillPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--- {:?} dies {:?} after this line, for {:?}",
            self.target, self.after, self.dead
        )?;
        if let Some(time) = self.freeze {
            write!(f, ", and the operator is stopped for {time:?} before")?;
        }
        if self.target != KillTarget::Operator && self.together {
            write!(f, ", and the operator with it")?;
        }
        if self.cloud.lags {
            write!(f, "; Describe lags by 2 s")?;
        }
        write!(f, "; faults {}", self.cloud.faults)
    }
}

impl CloudFaults {
    fn draw(random: &mut StdRng) -> Self {
        let mut faults = faults(random);
        let lags = random.random_bool(0.3);
        let mut late = false;
        for fault in faults.as_array_mut().into_iter().flatten() {
            if fault["effect"] == true && random.random_bool(0.3) {
                fault["effect"] = json!(false);
                fault["effectAfter"] = json!(format!("{}s", LATE.as_secs()));
                late = true;
            }
        }
        Self { faults, late, lags }
    }
}

/// How late.
pub const LATE: Duration = Duration::from_secs(4);

/// What goes wrong in the cloud meanwhile: nothing in most rounds.
fn faults(random: &mut StdRng) -> Value {
    if random.random_bool(0.6) {
        return json!([]);
    }
    let kinds = [
        json!({"error": {"code": "InternalError", "status": 500}}),
        json!({"error": {"code": "ServiceUnavailable", "status": 503}}),
        json!({"error": {"code": "OperationConflict", "status": 409}}),
        json!("reset"),
        json!({"malformed": "badGateway"}),
        json!({"malformed": "truncated"}),
        json!({"latency": "300ms"}),
    ];
    let actions = [
        json!("JoinSecurityGroup"),
        json!("LeaveSecurityGroup"),
        json!("DescribeInstances"),
        Value::Null,
    ];
    (0..random.random_range(1..4))
        .map(|_| {
            let probability = [0.1, 0.4, 1.0][random.random_range(0..3)];
            let action = &actions[random.random_range(0..actions.len())];
            let has_effect = random.random_bool(0.5);
            let fault = &kinds[random.random_range(0..kinds.len())];
            // A 4xx is a refusal: it has no effect (C19 and Q6 in docs/proof.md).
            let is_refusal = fault["error"]["status"] == 409;
            json!({
                "action": action, "probability": probability, "effect": has_effect && !is_refusal, "fault": fault,
            })
        })
        .collect()
}

/// How many died of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct KillCounts {
    operator: usize,
    api_server: usize,
    etcd: usize,
    both: usize,
    frozen: usize,
}

impl KillCounts {
    pub const fn kills(&self) -> usize {
        self.operator + self.api_server + self.etcd + self.both
    }
}

impl AddAssign<&KillPlan> for KillCounts {
    fn add_assign(&mut self, plan: &KillPlan) {
        self.frozen += usize::from(plan.freeze.is_some());
        match plan.target {
            KillTarget::Operator => self.operator += 1,
            KillTarget::ApiServer => self.api_server += 1,
            KillTarget::Etcd => self.etcd += 1,
            KillTarget::Both => self.both += 1,
        }
    }
}

impl fmt::Display for KillCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills (operator {}, API server {}, etcd {}, both {}), {} freezes",
            self.kills(),
            self.operator,
            self.api_server,
            self.etcd,
            self.both,
            self.frozen
        )
    }
}
