//! `/resource/env`: environment files that jobs name later.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    response::Response,
    routing::{delete, post},
};
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use liqo_api::jobs::EnvSource;
use liqo_front::{json::once as answer, problem::Problem};
use liqo_kube::owner_reference;
use serde_json::json;

use super::{
    Facade,
    dotenv::Variables,
    made_up,
    order::{self, RESOURCE_LABEL, SECRETS_ANNOTATION},
    upload,
};
use crate::{api::What, submit};

pub(super) fn routes() -> Router<Facade> {
    let all = Router::new().route("/resource/env", post(make)).route("/resource/env/", post(make));
    all.route("/resource/env/{id}", delete(remove)).route("/resource/env/{id}/", delete(remove))
}

async fn make(State(facade): State<Facade>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let files = upload::files(&headers, body).await?;
    let missing = || Problem::new(StatusCode::BAD_REQUEST, "send the file as the field env_file of a form");
    let variables = upload::variables(&files, "env_file")?.ok_or_else(missing)?;
    let file = files.iter().find(|file| file.field == "env_file").ok_or_else(missing)?;
    let id = made_up("env")?;
    facade.keep_resource(&id, variables).await?;
    Ok(answer(&json!({"filename": file.name, "resource_id": id})))
}

async fn remove(State(facade): State<Facade>, Path(id): Path<String>) -> Result<Response, Problem> {
    if facade.forget(&id).await? { Ok(answer(&json!({}))) } else { Err(missing(&id)) }
}

fn missing(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no resource {id:?}"))
}

impl Facade {
    /// The ConfigMap of this name.
    pub(super) async fn resource(&self, name: &str) -> Result<Option<ConfigMap>, Problem> {
        self.may("get", What::ConfigMaps, name).await?;
        let world = &self.app.world;
        world.cluster.get::<ConfigMap>(&world.namespace, name).await.map_err(|error| submit::refused(&error))
    }

    /// Where the variables of a resource come from.
    pub(super) async fn sources(&self, id: &str) -> Result<Vec<EnvSource>, Problem> {
        let found = self.resource(id).await?.ok_or_else(|| missing(id))?;
        Ok(order::sources(id, true, found.annotations().contains_key(SECRETS_ANNOTATION)).collect())
    }

    /// Keeps variables under a name until somebody removes them. The Secret goes with the ConfigMap.
    pub(super) async fn keep_resource(&self, name: &str, variables: Variables) -> Result<(), Problem> {
        self.may("create", What::ConfigMaps, "").await?;
        self.may_keep(&variables).await?;
        let Variables { plain, secret } = variables;
        let (world, has_secrets) = (&self.app.world, !secret.is_empty());
        let mut metadata = order::metadata(&world.namespace, name, None);
        metadata.labels = Some([(RESOURCE_LABEL.to_owned(), "env".to_owned())].into());
        metadata.annotations = has_secrets.then(|| [(SECRETS_ANNOTATION.to_owned(), "true".to_owned())].into());
        let refused = |error| submit::refused(&error);
        let made = world.cluster.create(&order::config_map(metadata, plain)).await.map_err(refused)?;
        if has_secrets {
            let owned = order::metadata(&world.namespace, name, Some(owner_reference(&made, false)));
            if let Err(error) = world.cluster.create(&order::secret(owned, secret)).await {
                world.cluster.remove(&made).await.map_err(refused)?;
                return Err(submit::refused(&error));
            }
        }
        Ok(())
    }

    /// Removes what a caller of the facade had sent, and nothing else; says whether such a resource was there.
    pub(super) async fn forget(&self, name: &str) -> Result<bool, Problem> {
        let found = self.resource(name).await?.filter(|found| found.labels().contains_key(RESOURCE_LABEL));
        let Some(found) = found else { return Ok(false) };
        self.may("delete", What::ConfigMaps, name).await?;
        self.app.world.cluster.remove(&found).await.map_err(|error| submit::refused(&error))?;
        Ok(true)
    }
}
