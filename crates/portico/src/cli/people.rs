//! Commands about people: rescue, administration, keys, tokens, API keys, messages.

use clap::{Args, Subcommand};

use super::Remote;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    portico admin create-user root --role super_admin\n  \
    portico admin reset-password root\n  \
    portico admin grant ada tenant_admin")]
pub(crate) struct AdminArgs {
    #[command(subcommand)]
    pub(crate) command: AdminCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Print a one-time link that creates the first super administrator.
    SetupLink,
    /// Create a user and print a one-time link to choose a password.
    CreateUser(NewUserArgs),
    /// Print a one-time link, or a temporary password, for somebody who cannot log in.
    ResetPassword {
        #[command(flatten)]
        who: WhoArgs,
        /// Print a password that has to be changed at its first login, instead of a link.
        #[arg(long, conflicts_with = "mail")]
        temporary: bool,
        /// Send the link to the user's verified address instead of printing it.
        #[arg(long)]
        mail: bool,
    },
    /// Give a user roles besides those that they have.
    Grant {
        #[command(flatten)]
        who: WhoArgs,
        /// Names of roles.
        #[arg(required = true, value_name = "ROLE")]
        roles: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewUserArgs {
    /// User name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// E-mail address.
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// Phone number.
    #[arg(long)]
    pub(crate) phone: Option<String>,
    /// Name for people.
    #[arg(long, value_name = "NAME")]
    pub(crate) display_name: Option<String>,
    /// A role besides `user`; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// Slug or id of the tenant [default: system for a super administrator, else default].
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Print a password that has to be changed at its first login, instead of a link.
    #[arg(long)]
    pub(crate) temporary: bool,
}

/// A user, as people name one.
#[derive(Debug, Clone, Args)]
pub(crate) struct WhoArgs {
    /// Id, user name, e-mail address or phone number.
    #[arg(value_name = "USER")]
    pub(crate) user: String,
    /// Slug or id of the tenant [default: default, then system].
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    pub(crate) command: UserCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Users of a tenant, newest first.
    List {
        /// Slug or id of the tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// Beginning of a name.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// One state: pending, active, disabled or deleted.
        #[arg(long)]
        status: Option<String>,
        /// Name of a role.
        #[arg(long)]
        role: Option<String>,
    },
    /// Everything about a user but their secrets.
    Show(WhoArgs),
    /// Refuse a user from now on: every session and key of theirs ends.
    Disable {
        #[command(flatten)]
        who: WhoArgs,
        /// Why, for the audit.
        #[arg(long)]
        reason: Option<String>,
        /// Until when, RFC 3339 (2026-12-31T00:00:00Z).
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Let a user log in again.
    Enable(WhoArgs),
    /// Show a user's roles, or replace them.
    Roles {
        #[command(flatten)]
        who: WhoArgs,
        /// Names of all roles that the user is to have.
        #[arg(long, value_name = "ROLE,…", value_delimiter = ',')]
        set: Option<Vec<String>>,
    },
    /// End all sessions of a user.
    Logout(WhoArgs),
    /// Write a copy of everything that is kept about a user into a zip file.
    Export {
        #[command(flatten)]
        who: WhoArgs,
        /// Why, for the audit.
        #[arg(long)]
        reason: String,
        /// The file; it must not exist. Default: the user's id with the ending `.zip`.
        #[arg(long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
    /// Erase a user's account and data for good, now.
    Erase {
        #[command(flatten)]
        who: WhoArgs,
        /// Why, for the audit.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Keys that tokens are signed with, and what they are doing.
    List,
    /// Let the next key sign from now on, without an interruption.
    Rotate {
        /// Why, for the audit.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Drop all keys at once: every access token ends within a second.
    Emergency {
        /// End all sessions, too, so that everybody logs in again.
        #[arg(long)]
        end_sessions: bool,
        /// Why, for the audit.
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AccessTokenArgs {
    #[command(subcommand)]
    pub(crate) command: AccessTokenCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccessTokenCommand {
    /// Check an access token step by step and say where it fails.
    Inspect {
        /// The token; `-` reads it from standard input, which keeps it out of the shell's history.
        // Not `token`: a global argument shares its value with all of its name.
        #[arg(value_name = "TOKEN")]
        inspected: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ApikeyArgs {
    #[command(subcommand)]
    pub(crate) command: ApikeyCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApikeyCommand {
    /// API keys of the tenant, never their secret part.
    List,
    /// Make a key; it is printed once.
    Create {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// A permission; may be given several times.
        #[arg(long = "scope", value_name = "PERMISSION")]
        scopes: Vec<String>,
        /// A service that it opens [default: all]; may be given several times.
        #[arg(long = "service", value_name = "NAME")]
        services: Vec<String>,
        /// A network that it is used from [default: all]; may be given several times.
        #[arg(long = "cidr", value_name = "CIDR")]
        cidrs: Vec<String>,
        /// Whose key it is, by id or name [default: the caller; the operator names somebody].
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
        /// Days until it ends, at most 730 [default: the setting, 90].
        #[arg(long, value_name = "N")]
        days: Option<u32>,
    },
    /// End a key.
    Revoke {
        /// Id of the key.
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SmsArgs {
    #[command(subcommand)]
    pub(crate) command: SmsCommand,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SmsCommand {
    /// Send a test message through one provider to your own verified phone.
    Test {
        /// aliyun, tencent or twilio.
        #[arg(value_name = "PROVIDER")]
        provider: String,
    },
    /// Sign the vendors' published examples and compare.
    Vectors,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Measure Argon2id on this machine and say which parameters cost how much.
    Argon2Tune {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}
