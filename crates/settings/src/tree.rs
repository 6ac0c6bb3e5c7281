//! Settings as a tree of keys, for the Consul-compatible view: dots as slashes, values as JSON, through the
//! same validation, permission, history and audit as everything else (CT-14).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Context, Fault as _, Refusal};
use portico_contract::settings_tree::{Leaf, Leaves, SettingsTree, TreeError, TreeListener};
use serde_json::Value;

use crate::domain::declared::Declared;
use crate::domain::state::State;
use crate::error::Error;
use crate::hub::Core;
use crate::live;
use crate::ops::change::change;
use crate::ops::plan::{Wish, Wished};
use crate::ops::scope::{Sight, need, own};
use crate::permissions::{VALUE_READ, VALUE_WRITE};
use crate::views::position;

/// The tree of one process.
pub(crate) struct Tree(pub Arc<Core>);

impl Tree {
    fn leaf(&self, state: &State, sight: &Sight, declared: &Declared) -> Leaf {
        let scope = sight.scope();
        let found = state.effective(&*self.0.file, scope, &declared.key);
        let value = found.map_or_else(|| Arc::clone(&declared.default), |(value, _)| value);
        let row = state
            .get(scope, &declared.key)
            .map(|taken| &taken.stored)
            .filter(|stored| stored.is_set());
        Leaf {
            key: declared.key.replace('.', "/"),
            value: if declared.secret {
                Vec::new()
            } else {
                value.to_string().into_bytes()
            },
            secret: declared.secret,
            created: row.map_or(0, |stored| stored.created_seq),
            modified: row.map_or(0, |stored| stored.seq),
        }
    }
}

impl SettingsTree for Tree {
    fn look(&self, context: &Context, key: &str, exactly: bool) -> Result<Leaves, TreeError> {
        need(context, &VALUE_READ)?;
        let sight = Sight::Scope(own(context));
        let prefix = key.replace('/', ".");
        let state = self.0.live.state();
        // A dot in a path is no slash: there is no such key.
        let declared: Vec<Arc<Declared>> = self
            .0
            .catalogue
            .list(&prefix, sight.scope())
            .into_iter()
            .filter(|d| !key.contains('.') && sight.sees(d) && (!exactly || *d.key == *prefix))
            .collect();
        Ok(Leaves {
            leaves: declared
                .iter()
                .map(|d| self.leaf(&state, &sight, d))
                .collect(),
            changed: declared
                .iter()
                .map(|d| position(&state, sight.scope(), &d.key))
                .max()
                .unwrap_or(0),
        })
    }

    fn write<'a>(
        &'a self,
        context: &'a Context,
        key: &'a str,
        value: Option<&'a [u8]>,
        cas: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, TreeError>> {
        Box::pin(async move {
            let to = match value {
                None => None,
                Some(bytes) => Some(parse(bytes)?),
            };
            let dotted = key.replace('/', ".");
            if key.contains('.') {
                return Err(TreeError::Unknown);
            }
            let scope = own(context);
            // Without an expectation the last writer wins, as it does with Consul: on each collision again.
            for _ in 0..TRIES {
                live::catch_up(&self.0).await?;
                let state = self.0.live.state();
                let row = state.get(scope, &dotted).map(|taken| &taken.stored);
                let modified = row.filter(|s| s.is_set()).map_or(0, |s| s.seq);
                if cas.is_some_and(|wanted| wanted != modified) {
                    // Who may not write is not told whether the position was right.
                    need(context, &VALUE_WRITE)?;
                    return Ok(false);
                }
                let wish = Wish {
                    scope,
                    changes: vec![Wished {
                        key: dotted.clone(),
                        to: to.clone(),
                        base: Some(state.version(scope, &dotted)),
                        rolled_back_from: None,
                    }],
                    comment: Some(COMMENT.to_owned()),
                    confirm: true,
                    ..Wish::default()
                };
                match change(&self.0, context, &wish).await {
                    Ok(_) => return Ok(true),
                    Err(Error::Conflict(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(TreeError::Invalid("it is changed too often".to_owned()))
        })
    }

    fn subscribe(&self, listener: TreeListener) {
        self.0.live.subscribe(Arc::new(move |changed| {
            let paths: Vec<String> = changed.iter().map(|key| key.replace('.', "/")).collect();
            listener(&paths);
        }));
    }
}

/// What the history says of a write through this view.
const COMMENT: &str = "through the Consul-compatible API";
/// Collisions that a write without an expectation outlives.
const TRIES: u32 = 20;

fn parse(bytes: &[u8]) -> Result<Value, TreeError> {
    serde_json::from_slice(bytes)
        .map_err(|error| TreeError::Invalid(format!("the value must be JSON: {error}")))
}

impl From<Error> for TreeError {
    fn from(error: Error) -> Self {
        let texts = || {
            let fields = error.fields().iter();
            let texts = fields.map(|f| format!("{}: {}", f.field, f.message));
            texts.collect::<Vec<_>>().join("; ")
        };
        match &error {
            Error::Access(Refusal::StepUp) => {
                Self::Invalid("this setting is changed with a second factor only".to_owned())
            }
            Error::Access(_) => Self::Denied,
            Error::UnknownKey(_) => Self::Unknown,
            Error::Invalid(_) | Error::Configuration(_) | Error::NotPossible(_) => {
                Self::Invalid(texts())
            }
            _ => Self::Failed(Box::new(error)),
        }
    }
}
