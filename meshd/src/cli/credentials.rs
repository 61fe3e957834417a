//! Join tokens and joined hosts.

use std::time::Duration;

use super::output::{self, Format};
use super::{CliError, OutputArgs};
use crate::admin::client::Client;
use crate::admin::view::{AllowRequest, NewTokenView, NodeView, TokenRequestView, TokenView};
use crate::cli::fleet::encoded;
use crate::config::duration;

/// `token ...`.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a join token, shown this once
    Create(TokenCreateArgs),
    /// List tokens
    List(OutputArgs),
    /// Make a token worthless
    Revoke {
        /// Its id, as `token list` shows it
        id: String,
    },
}

/// Flags of `token create`.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenCreateArgs {
    /// Name of the only node that may use it
    #[arg(long, env = "MESHD_NODE", value_name = "NAME")]
    pub node: String,
    /// Account that the node may be, `NS/SA` or '*' for all (repeatable; none allows none)
    #[arg(long, env = "MESHD_SERVICE_ACCOUNT", value_name = "NS/SA", value_delimiter = ',')]
    pub service_account: Vec<String>,
    /// How long it is good
    #[arg(long, env = "MESHD_TTL", default_value = "1h", value_parser = duration)]
    pub ttl: Duration,
    /// How many different keys may use it
    #[arg(long, env = "MESHD_USES", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `node ...`.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum NodeCommand {
    /// List joined hosts and the identities that they may have
    List(OutputArgs),
    /// Allow a host more identities
    Allow {
        /// The node
        node: String,
        /// Accounts, `NS/SA` or '*' for all
        #[arg(required = true, value_name = "NS/SA")]
        service_accounts: Vec<String>,
    },
    /// Throw a host out, at once
    Revoke {
        /// The node
        node: String,
    },
}

/// Makes, lists and revokes tokens.
pub async fn token(client: &Client, command: &TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::Create(args) => {
            let request = TokenRequestView {
                node: args.node.clone(),
                service_accounts: args.service_account.clone(),
                ttl_seconds: args.ttl.as_secs(),
                uses: args.uses,
            };
            let made: NewTokenView = client.post("/v1/tokens", &request).await?;
            match args.output.output {
                Format::Table | Format::Wide => output::print(&format!("{}\n", made.token)),
                format => output::print_value(format, &made),
            }
        }
        TokenCommand::List(args) => {
            let tokens: Vec<TokenView> = client.get("/v1/tokens").await?;
            let columns = ["id", "node", "service accounts", "expires", "uses", "state"];
            output::print_list(args.output, &tokens, &columns, |token| {
                vec![
                    token.id.clone(),
                    token.node.clone(),
                    token.service_accounts.join(","),
                    token.expires.clone(),
                    format!("{}/{}", token.used, token.uses),
                    token.state.clone(),
                ]
            })
        }
        TokenCommand::Revoke { id } => {
            let _done: serde_json::Value = client.delete(&format!("/v1/tokens/{}", encoded(id))).await?;
            output::print(&format!("token {id} revoked\n"))
        }
    }
}

/// Lists, allows and revokes hosts.
pub async fn node(client: &Client, command: &NodeCommand) -> Result<(), CliError> {
    match command {
        NodeCommand::List(args) => {
            let nodes: Vec<NodeView> = client.get("/v1/nodes").await?;
            let columns = ["node", "address", "service accounts", "joined", "certificate expires", "state"];
            output::print_list(args.output, &nodes, &columns, |node| {
                let state = match (node.revoked, node.connected, node.drained) {
                    (true, ..) => "revoked",
                    (false, true, false) => "connected",
                    (false, true, true) => "connected, drained",
                    (false, false, false) => "away",
                    (false, false, true) => "away, drained",
                };
                vec![
                    node.node.clone(),
                    node.address.clone(),
                    node.service_accounts.join(","),
                    node.joined.clone(),
                    node.certificate_expires.clone(),
                    state.to_owned(),
                ]
            })
        }
        NodeCommand::Allow { node, service_accounts } => {
            let request = AllowRequest { service_accounts: service_accounts.clone() };
            let view: NodeView = client.post(&format!("/v1/nodes/{}/allow", encoded(node)), &request).await?;
            output::print(&format!("node {node} may be {}\n", view.service_accounts.join(", ")))
        }
        NodeCommand::Revoke { node } => {
            let _done: NodeView =
                client.post(&format!("/v1/nodes/{}/revoke", encoded(node)), &serde_json::json!({})).await?;
            output::print(&format!("node {node} revoked\n"))
        }
    }
}
