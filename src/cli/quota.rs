//! `stoplog quota set|ls|describe|rm`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::failure::CommandResult;
use super::output::{Output, Table, confirm, grouped};
use super::topic::{as_usage, really, settings};
use crate::client::Admin;
use crate::types::{QuotaDescription, QuotaEntity, QuotaLimits, QuotaUse, Resource, format_bytes};

const ENTITIES: &str = "\
Entities:
  broker                       everybody together
  principal/NAME               an authenticated principal; all are `anonymous` in this version
  user/NAME/client/NAME        a client id of a principal, instead of client/NAME
  client/NAME                  a client id
  topic/NAME                   a topic
  principal/NAME/topic/NAME    what a principal does to a topic
  group/NAME                   a consumer group
  ip/ADDRESS                   an address
A NAME is one name, shop* for all that begin so together, or <default> for every single one that has
no quota of its own.";

const SETTINGS: &str = "\
Settings:
  produce_bytes, fetch_bytes                bytes per second, as 10MiB
  produce_records, fetch_records, requests  per second
  connection_rate, partition_mutations      per second
  connections                               at a time
  inflight_bytes, storage_bytes             bytes at a time
  weight                                    1 to 1000: the share beside others, 100 by default
  class_max                                 p1, p2 or p3: the most important class it may ask for
  mode                                      enforce, or dry_run: only count what would be refused

Examples:
  stoplog quota set client/shop produce_bytes=10MiB fetch_bytes=20MiB
  stoplog quota set 'client/<default>' produce_bytes=1MiB mode=dry_run
  stoplog quota set 'topic/orders-*' storage_bytes=50GiB
  stoplog quota set client/shop fetch_bytes=none";

/// Arguments of `quota`.
#[derive(Debug, Args)]
#[command(after_long_help = ENTITIES)]
pub struct QuotaArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set limits of an entity; what is not named stays, KEY=none removes one limit.
    #[command(after_long_help = SETTINGS)]
    Set(Set),
    /// List all quotas with what is used of them.
    #[command(visible_alias = "list")]
    Ls,
    /// Show the limits of an entity and everybody who uses them.
    #[command(visible_alias = "get")]
    Describe {
        /// Whose quota, as in client/shop.
        entity: QuotaEntity,
    },
    /// Remove a quota: the entity is not limited by it any more.
    #[command(visible_alias = "delete")]
    Rm(Remove),
}

#[derive(Debug, Args)]
struct Set {
    /// Whom it limits, as in client/shop; stoplog quota --help lists all forms.
    entity: QuotaEntity,
    /// The limits.
    #[arg(required = true, value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Only check.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Remove {
    /// Whose quota, as in client/shop.
    entity: QuotaEntity,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
}

/// Runs `quota`.
pub fn run(args: &QuotaArgs, out: &mut Output) -> CommandResult {
    args.connection.administer(async |admin| match &args.verb {
        Verb::Set(args) => set(&admin, args, out).await,
        Verb::Ls => list(&admin, out).await,
        Verb::Describe { entity } => describe(&admin, entity, out).await,
        Verb::Rm(args) => remove(&admin, args, out).await,
    })
}

async fn set(admin: &Admin, args: &Set, out: &mut Output) -> CommandResult {
    let changes = settings(&args.settings)?;
    let set = admin.set_quota(&args.entity, &changes, really(args.dry_run)).await;
    let limits = set.map_err(|error| as_usage(error.into()))?;
    let verb = if args.dry_run { "would be" } else { "is" };
    out.say(format_args!("quota of {} {verb}: {}", args.entity, written(&limits)))?;
    out.json(&json!({
        "entity": args.entity.to_string(), "settings": to_json(&limits), "dry_run": args.dry_run,
    }))
}

async fn list(admin: &Admin, out: &mut Output) -> CommandResult {
    let mut table = Table::new(&["ENTITY", "SETTINGS", "USE", "REFUSED"]);
    for quota in admin.quotas(None).await? {
        out.json(&description(&quota))?;
        let refused = quota.used.iter().map(|used| used.refused).fold(0, u64::saturating_add);
        let (entity, limits) = (quota.entity.to_string(), written(&quota.limits));
        table.row([entity, limits, busiest(&quota.used), grouped(refused)]);
    }
    out.table(&table)
}

async fn describe(admin: &Admin, entity: &QuotaEntity, out: &mut Output) -> CommandResult {
    let head = ["ENTITY", "RESOURCE", "USED", "OF", "MEMBERS", "REFUSED", "WOULD REFUSE"];
    for quota in admin.quotas(Some(entity)).await? {
        out.json(&description(&quota))?;
        out.say(format_args!("quota of {}: {}", quota.entity, written(&quota.limits)))?;
        let mut table = Table::new(&head);
        for used in &quota.used {
            table.row([
                used.entity.to_string(),
                used.resource.name().to_owned(),
                amount(used.resource, used.used),
                of(used).map_or_else(|| "no limit".to_owned(), |of| amount(used.resource, of)),
                grouped(used.members),
                grouped(used.refused),
                grouped(used.would_throttle),
            ]);
        }
        out.table(&table)?;
    }
    Ok(())
}

async fn remove(admin: &Admin, args: &Remove, out: &mut Output) -> CommandResult {
    let quotas = admin.quotas(Some(&args.entity)).await?;
    let limits = quotas.first().map(|quota| written(&quota.limits)).unwrap_or_default();
    let plan = format!("quota of {}: {limits}", args.entity);
    if !args.dry_run {
        confirm(&format!("remove {plan}"), args.yes)?;
    }
    admin.delete_quota(&args.entity, really(args.dry_run)).await?;
    let verb = if args.dry_run { "would remove" } else { "removed" };
    out.say(format_args!("{verb} {plan}"))?;
    out.json(&json!({ "entity": args.entity.to_string(), "dry_run": args.dry_run }))
}

/// Settings as `quota set` takes them.
fn written(limits: &QuotaLimits) -> String {
    let write = |(key, value): (&str, String)| {
        let resource = key.parse::<Resource>().ok();
        let in_bytes = resource.is_some_and(|resource| resource.unit().starts_with("bytes"));
        let value = match value.parse() {
            Ok(bytes) if in_bytes => exact_bytes(bytes),
            _ => value,
        };
        format!("{key}={value}")
    };
    let written: Vec<String> = limits.entries().into_iter().map(write).collect();
    if written.is_empty() { "no limits".to_owned() } else { written.join(" ") }
}

/// A size that reads back as the same number: `10MiB`, `1500`.
fn exact_bytes(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
    unit.map_or_else(|| bytes.to_string(), |(name, scale)| format!("{}{name}", bytes / scale))
}

/// The limit, where there still is one.
fn of(used: &QuotaUse) -> Option<u64> {
    (used.limit != u64::MAX).then_some(used.limit)
}

fn amount(resource: Resource, number: u64) -> String {
    match resource.unit() {
        "bytes" => format_bytes(number),
        "bytes/s" => format!("{}/s", format_bytes(number)),
        unit => format!("{} {unit}", grouped(number)),
    }
}

/// Of all uses the one that is nearest to its limit.
fn busiest(uses: &[QuotaUse]) -> String {
    let share = |used: &QuotaUse| {
        u128::from(used.used) * 1_000 / u128::from(of(used).unwrap_or(u64::MAX).max(1))
    };
    let Some(used) = uses.iter().max_by_key(|used| share(used)) else {
        return "none yet".to_owned();
    };
    format!("{} {}", used.resource.name(), amount(used.resource, used.used))
}

fn to_json(limits: &QuotaLimits) -> Value {
    let value = |text: String| text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from);
    let entries = limits.entries().into_iter();
    Value::Object(entries.map(|(key, text)| (key.to_owned(), value(text))).collect::<Map<_, _>>())
}

fn description(quota: &QuotaDescription) -> Value {
    let used = quota.used.iter().map(|used| {
        json!({
            "entity": used.entity.to_string(), "resource": used.resource.name(),
            "used": used.used, "limit": of(used), "unit": used.resource.unit(),
            "members": used.members, "refused": used.refused,
            "would_throttle": used.would_throttle,
        })
    });
    json!({
        "entity": quota.entity.to_string(), "settings": to_json(&quota.limits),
        "used": used.collect::<Vec<_>>(),
    })
}
