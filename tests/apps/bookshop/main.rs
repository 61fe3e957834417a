//! The example application: four small HTTP services in one binary.
//!
//! It answers to the names, ports, labels and versions of Istio's Bookinfo and knows nothing of a mesh: it calls
//! its neighbours by plain names, honours an ordinary `http_proxy`, and passes trace headers on. Every answer says
//! which role, version and instance gave it, so that shares can be counted from outside.

mod page;
mod upstream;

use std::net::SocketAddr;
use std::rc::Rc;

use clap::{Parser, ValueEnum};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use upstream::{Upstream, Via};

/// Which of the four services this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Productpage,
    Reviews,
    Ratings,
    Details,
}

/// A small bookshop: one of its four services.
#[derive(Debug, Parser)]
#[command(name = "bookshop")]
struct Args {
    /// The service to be.
    #[arg(long, value_enum)]
    role: Role,
    /// The version to answer as; of reviews, v1 shows no stars, v2 black ones and v3 red ones.
    #[arg(long, default_value = "v1")]
    version: String,
    /// The name of this instance in its answers; role and version by default.
    #[arg(long)]
    instance: Option<String>,
    /// The addresses to accept on.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Where details is called.
    #[arg(long, default_value = "http://details:9080")]
    details: String,
    /// Where reviews is called.
    #[arg(long, default_value = "http://reviews:9080")]
    reviews: String,
    /// Where ratings is called.
    #[arg(long, default_value = "http://ratings:9080")]
    ratings: String,
    /// Where productpage is called, by a chain of calls.
    #[arg(long, default_value = "http://productpage:9080")]
    productpage: String,
    /// An HTTP proxy for all calls, as `http://127.0.0.1:15080`.
    #[arg(long, env = "http_proxy")]
    http_proxy: Option<String>,
}

/// What the handlers share.
struct App {
    role: Role,
    version: String,
    instance: String,
    details: Upstream,
    reviews: Upstream,
    ratings: Upstream,
    productpage: Upstream,
    /// Numbers by which requests are made to fail.
    chance: std::cell::Cell<u64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    runtime.block_on(tasks.run_until(serve(args)))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let via = Via::from_proxy(args.http_proxy.as_deref())?;
    let role = args.role.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let app = Rc::new(App {
        role: args.role,
        instance: args.instance.unwrap_or_else(|| format!("{role}-{}", args.version)),
        version: args.version,
        details: Upstream::new(&args.details, &via)?,
        reviews: Upstream::new(&args.reviews, &via)?,
        ratings: Upstream::new(&args.ratings, &via)?,
        productpage: Upstream::new(&args.productpage, &via)?,
        chance: std::cell::Cell::new(0x9e37_79b9_7f4a_7c15),
    });
    let mut accepting = Vec::new();
    for address in args.listen {
        let listener = TcpListener::bind(address).await?;
        println!("{} listening on {}", app.instance, listener.local_addr()?);
        accepting.push(tokio::task::spawn_local(accept(listener, app.clone())));
    }
    for task in accepting {
        task.await?;
    }
    Ok(())
}

async fn accept(listener: TcpListener, app: Rc<App>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(connection(stream, app.clone()));
            }
            // Out of descriptors: give the connections at hand a moment to end.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

/// Serves HTTP/1.1, or HTTP/2 to a caller that starts with its preface.
async fn connection(stream: TcpStream, app: Rc<App>) {
    let mut first = [0u8; 3];
    let h2 = matches!(stream.peek(&mut first).await, Ok(3) if &first == b"PRI");
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| page::answer(app.clone(), request));
    let io = TokioIo::new(stream);
    let ended = if h2 {
        hyper::server::conn::http2::Builder::new(LocalExecutor).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
    if let Err(error) = ended {
        // A caller that goes away is its own business; the line helps where an answer is missed.
        eprintln!("connection: {error}");
    }
}

/// Runs hyper's tasks on this thread, since the application's state is not shared with others.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
