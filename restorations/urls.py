from django.urls import path

from restorations.views import (
    account,
    deletions,
    hooks,
    imports,
    restorations,
    saved_settings,
    uploads,
    videos,
)

urlpatterns = [
    path("settings/data/", account.account_data, name="account-data"),
    path("settings/data/export/", account.data_export, name="data-export"),
    path("settings/data/<uuid:export_id>/", account.data_export_download, name="data-export-download"),
    path("settings/delete/", account.account_delete, name="account-delete"),
    path("settings/keep/", account.account_keep, name="account-keep"),
    path("w/<slug:slug>/", videos.workspace_home, name="workspace-home"),
    path("w/<slug:slug>/uploads/", uploads.upload_create, name="upload-create"),
    path("w/<slug:slug>/uploads/<uuid:upload_id>/", uploads.upload_abort, name="upload-abort"),
    path("w/<slug:slug>/uploads/<uuid:upload_id>/parts/", uploads.upload_parts, name="upload-parts"),
    path(
        "w/<slug:slug>/uploads/<uuid:upload_id>/parts/<int:number>/", uploads.upload_part, name="upload-part"
    ),
    path("w/<slug:slug>/uploads/<uuid:upload_id>/complete/", uploads.upload_complete, name="upload-complete"),
    path("w/<slug:slug>/imports/", imports.import_list, name="import-list"),
    path("w/<slug:slug>/imports/begin/", imports.import_create, name="import-create"),
    path("w/<slug:slug>/imports/<uuid:import_id>/cancel/", imports.import_cancel, name="import-cancel"),
    path("w/<slug:slug>/videos/", videos.video_create, name="video-create"),
    path("w/<slug:slug>/videos/<uuid:video_id>/", videos.video_detail, name="video-detail"),
    path("w/<slug:slug>/videos/<uuid:video_id>/quote/", videos.video_quote, name="video-quote"),
    path("w/<slug:slug>/videos/<uuid:video_id>/restore/", videos.video_restore, name="video-restore"),
    path("w/<slug:slug>/videos/<uuid:video_id>/preview/", videos.video_preview, name="video-preview"),
    path("w/<slug:slug>/videos/<uuid:video_id>/buy/", videos.video_buy, name="video-buy"),
    path(
        "w/<slug:slug>/videos/<uuid:video_id>/save-settings/",
        saved_settings.saved_settings_create,
        name="saved-settings-create",
    ),
    path("w/<slug:slug>/videos/<uuid:video_id>/delete/", videos.video_delete, name="video-delete"),
    path("w/<slug:slug>/saved-settings/", saved_settings.saved_settings_list, name="saved-settings-list"),
    path(
        "w/<slug:slug>/saved-settings/<uuid:saved_id>/delete/",
        saved_settings.saved_settings_delete,
        name="saved-settings-delete",
    ),
    path("w/<slug:slug>/restorations/", restorations.restoration_list, name="restoration-list"),
    path(
        "w/<slug:slug>/restorations/<uuid:restoration_id>/",
        restorations.restoration_detail,
        name="restoration-detail",
    ),
    path(
        "w/<slug:slug>/restorations/<uuid:restoration_id>/cancel/",
        restorations.restoration_cancel,
        name="restoration-cancel",
    ),
    path(
        "w/<slug:slug>/restorations/<uuid:restoration_id>/delete/",
        restorations.restoration_delete,
        name="restoration-delete",
    ),
    path(
        "w/<slug:slug>/restorations/<uuid:restoration_id>/download/",
        restorations.restoration_download,
        name="restoration-download",
    ),
    path("w/<slug:slug>/deletions/", deletions.deletion_list, name="deletion-list"),
    path("w/<slug:slug>/deletions/<uuid:video_id>/", deletions.deletion_receipt, name="deletion-receipt"),
    path("hooks/runpod/<str:token>/", hooks.runpod_webhook, name="runpod-webhook"),
]
